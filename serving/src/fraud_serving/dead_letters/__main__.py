"""The command line. Exit code 0; 1 where something couldn't be done or sent; 2 for wrong arguments."""

from __future__ import annotations

import argparse
import heapq
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import KafkaException

from fraud_contracts import durations
from fraud_contracts.config import load_config
from fraud_contracts.errors import Reason
from fraud_contracts.records import DeadLetter
from fraud_pipelines.dead_letter_cipher import CipherError, DeadLetterCipher
from fraud_serving.dead_letters.id_states import MEANING, IdState, summary
from fraud_serving.dead_letters.redrive import Redrive, now_ms, obstacle
from fraud_serving.dead_letters.topic import DeadLetterError, DeadLetterTopic, Position


def line(at: Position, letter: DeadLetter) -> str:
    """One letter, its columns divided by tabs."""
    source = letter["source"]
    place = f"{source['topic']} {source['partition']}:{source['offset']}"
    columns = (at, _utc(letter["appended"]), letter["id"] or "-", letter["reason"], letter["stage"], place)
    return "\t".join([*map(str, columns), letter["message"]])


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def list_letters(topic: DeadLetterTopic, reason: str | None, since_ms: int | None, limit: int) -> None:
    """The newest letters, oldest first, then how many there are of each reason."""
    counts: Counter[str] = Counter()
    newest: list[tuple[int, Position, str]] = []
    oldest = 0 if since_ms is None else now_ms() - since_ms
    for at, letter in topic.letters():
        if letter is None:
            counts["(no dead letter)"] += 1
            continue
        if (reason is not None and letter["reason"] != reason) or letter["appended"] < oldest:
            continue
        counts[letter["reason"]] += 1
        row = (letter["appended"], at, line(at, letter))
        if len(newest) < limit:
            heapq.heappush(newest, row)
        else:
            heapq.heappushpop(newest, row)
    for _, _, text in sorted(newest):
        _say(text)
    hidden = sum(counts.values()) - counts["(no dead letter)"] - len(newest)
    if hidden > 0:
        _say(f"({hidden} older ones are not shown: --limit)")
    _say("")
    for name, count in counts.most_common():
        if count:
            _say(f"{count:>8}  {name}")
    _say(f"{sum(counts.values()):>8}  in all")


def explain(topic: DeadLetterTopic, at: Position, show: bool, cipher: DeadLetterCipher | None) -> None:
    """All of a letter, and what a redrive would make of it."""
    letter = topic.letter(at)
    source = letter["source"]
    why = obstacle(letter, topic.of, named=False)
    rows = {
        "letter": f"{topic.name} {at}",
        "id": letter["id"] or "(none could be read)",
        "reason": letter["reason"],
        "message": letter["message"],
        "refused by": letter["stage"],
        "source": f"{source['topic']} {source['partition']}:{source['offset']}",
        "appended": _utc(letter["appended"]),
        "redriven": "yes" if at.offset in topic.memory()[at.partition] else "no, as far as is remembered",
        "redrive": why or "is sent if the detector's spec accepts it now (redrive --dry-run)",
    }
    for name, value in rows.items():
        _say(f"{name:<11} {value}")
    if not show or cipher is None:
        _say(f"{'payload':<11} sealed; --show-payload opens it")
        return
    payload = cipher.decrypt(letter["payload"])
    _say(
        f"{'payload':<11} {len(payload)} bytes. IT MAY HOLD SENSITIVE DATA: don't copy it into tickets or chats."
    )
    text = payload.decode("utf-8", "backslashreplace")
    # Escaped, since the sender chose the bytes and this may be a terminal.
    _say("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def redrive(run: Redrive, reason: str | None, only: list[Position] | None, dry: bool) -> bool:
    """-> whether everything that should be sent was."""
    records = run.named(only) if only else run.all(reason)
    sent, failed = len(records), Counter[str]()
    if dry:
        for record in records:
            _say(f"would send {record.letter}{'' if record.key is not None else ' (without a key)'}")
    else:
        sent, failed = run.send(records)
    _say(f"{'would be sent' if dry else 'sent'}: {sent}")
    _say(f"skipped: {sum(run.skipped.values())}")
    for why, count in run.skipped.most_common():
        _say(f"{count:>8}  {why}")
    if failed:
        _say(f"not sent: {len(records) - sent}")
        for why, count in failed.most_common():
            _say(f"{count:>8}  {why}")
    if run.unopened:
        raise CipherError(
            f"letters skipped, since the payload was not sealed with this key, or was changed: {run.unopened}"
        )
    return not failed


def states(topic: DeadLetterTopic, id_field: str, ids: list[str] | None, show: list[str]) -> bool:
    """Each id's end, adding up; -> whether no id was decided twice."""
    ends = summary(topic, id_field, ids)
    counts = ends.counts()
    for event_id, state in ends.states.items():
        if state.value in show:
            _say(f"{state.value}\t{event_id}")
    for state in IdState:
        _say(f"{counts[state]:>8}  {state.value:<24}{MEANING[state]}")
    _say(f"{sum(counts.values()):>8}  ids in all")
    if ids is None and ends.nameless:
        _say("")
        for why, count in ends.nameless.most_common():
            _say(f"{count:>8}  without a readable id: {why}")
    for event_id in ends.doubled:
        _say(f"decided more than once: {event_id}")
    return not ends.doubled


def _ids(path: str) -> list[str]:
    """One id a line; ``-`` is the standard input."""
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


def _duration(text: str) -> int:
    try:
        return durations.to_ms(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="python -m fraud_serving.dead_letters",
        description="Read the detector's dead letters and send the originals to the stream again. Needs FRAUD_CONFIG and "
        "DEAD_LETTER_KEY, as the Pods of the worker have them.",
        epilog="Exit code: 0, 1 if something couldn't be done or sent, 2 for wrong arguments.",
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="list|explain|redrive|states")
    reasons = [reason.value for reason in Reason]

    listing = commands.add_parser(
        "list",
        help="one line for each letter, then counts by reason",
        description="One line for each letter, divided by tabs: position, time of the refused record, id, reason, stage, "
        "source topic and position, message. Counts by reason follow. No payload is opened.",
    )
    listing.add_argument("--reason", choices=reasons, metavar="REASON", help=f"one of {', '.join(reasons)}")
    listing.add_argument(
        "--since", type=_duration, metavar="DURATION", help="only the last, as in 30m, 1h, 7d"
    )
    listing.add_argument(
        "--limit", type=_count, default=100, metavar="N", help="lines, the newest (default 100)"
    )

    one = commands.add_parser("explain", help="all of one letter", description="All that one letter says.")
    one.add_argument("position", type=Position.parse, metavar="PARTITION:OFFSET")
    one.add_argument(
        "--show-payload",
        action="store_true",
        help="also open the sealed bytes; they may hold sensitive data such as card numbers",
    )

    redriving = commands.add_parser(
        "redrive",
        help="send the originals to transactions again",
        description="Sends the original bytes to transactions again, with the header redriven-from. Takes each letter once: "
        "what was sent is remembered in the group <identity>.redrive. Without --only it skips what the detector's spec "
        "would refuse again, ids that were reused, and letters older than the broker remembers a group's commit (7 days "
        "unless set otherwise). Never sent: records of other topics than transactions, and too_large, of which only the "
        "first bytes are kept. Run one redrive at a time. A run takes up to 32 MiB; run it again for the rest.",
    )
    which = redriving.add_mutually_exclusive_group()
    which.add_argument("--reason", choices=reasons, metavar="REASON", help="only letters with this reason")
    which.add_argument(
        "--only",
        nargs="+",
        type=Position.parse,
        metavar="PARTITION:OFFSET",
        help="just these, even if redriven before, old, of a reused id, or refused again",
    )
    redriving.add_argument(
        "--dry-run", action="store_true", help="say what would be sent; send and remember nothing"
    )

    ends = commands.add_parser(
        "states",
        help="how each id ended: decided, dead-lettered, sent again, under way",
        description="Counts ids by how they ended, from transactions, accepted, dead-letters and decisions; each id has one "
        "state, so the counts add up. No payload is opened. Exit code 1 if an id was decided more than once.",
    )
    ends.add_argument(
        "--ids", metavar="FILE", help="only these, one a line; - is standard input; all without it"
    )
    ends.add_argument(
        "--show",
        nargs="+",
        default=[],
        choices=[state.value for state in IdState],
        metavar="STATE",
        help="also list the ids in these states",
    )
    return whole


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        config = load_config()
        needs_key = args.command == "redrive" or (args.command == "explain" and args.show_payload)
        cipher = None
        if needs_key:
            if "DEAD_LETTER_KEY" not in os.environ:
                raise DeadLetterError("DEAD_LETTER_KEY isn't set: run this in a Pod of the detector")
            cipher = DeadLetterCipher(os.environ["DEAD_LETTER_KEY"])
        topic = DeadLetterTopic(config)
        try:
            if args.command == "list":
                list_letters(topic, args.reason, args.since, args.limit)
            elif args.command == "explain":
                explain(topic, args.position, args.show_payload, cipher)
            elif args.command == "states":
                ids = None if args.ids is None else _ids(args.ids)
                return 0 if states(topic, config.spec.event.id.field, ids, args.show) else 1
            elif cipher is not None:
                return (
                    0 if redrive(Redrive(topic, config, cipher), args.reason, args.only, args.dry_run) else 1
                )
        finally:
            topic.consumer.close()
    except (DeadLetterError, CipherError, KafkaException, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
