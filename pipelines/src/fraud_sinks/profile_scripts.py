"""What the profile sink does inside Redis: where two writers meet, only Redis can compare and write at once."""

from __future__ import annotations

from typing import Final

# What is kept of a feature set beside its profiles goes by itself once no sink has looked after it for so many seconds. Profiles without
# it are as good as incomplete.
MARKS_SECONDS: Final = 90 * 86_400

# KEYS: profile keys. ARGV: magic, header size, 1-based positions of epoch, seq and the newest event's time; then per key a profile, the
# UTC ms at which it goes, and its set's reach in ms, 0 where that isn't known.
# The rule is ``profile_order.replaces``.
SET_NEWER: Final = """
local magic, size = ARGV[1], tonumber(ARGV[2])
local at_epoch, at_seq, at_newest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local written = 0
local function number(format, profile, at) return (struct.unpack(format, profile, at)) end
for i, key in ipairs(KEYS) do
  local new, goes, reach = ARGV[3 + 3 * i], ARGV[4 + 3 * i], tonumber(ARGV[5 + 3 * i])
  local old = redis.pcall('GETRANGE', key, 0, at_newest + 6)
  local keep = false
  if type(old) == 'string' and #old >= size and string.sub(old, 1, #magic) == magic then
    local old_epoch, new_epoch = number('<I4', old, at_epoch), number('<I4', new, at_epoch)
    local ahead = 0
    if reach > 0 and #old == at_newest + 7 and #new >= #old then
      ahead = number('<i8', new, at_newest) - number('<i8', old, at_newest)
    end
    if old_epoch ~= new_epoch then
      keep = old_epoch > new_epoch
    elseif reach > 0 and math.abs(ahead) >= reach then
      keep = ahead < 0
    else
      keep = number('<I8', old, at_seq) > number('<I8', new, at_seq)
    end
  end
  if not keep then
    redis.call('SET', key, new, 'PXAT', goes)
    written = written + 1
  end
end
return written
"""
# Progress and mark change only where Redis still has what this process put there: else an emptied Redis would count as
# complete. A value that is no number counts as lost, too.
# KEYS: progress; per feature set what Redis holds of the stream's sources. ARGV: the partition's field, what it must be at least (""
# where nothing is expected), the new value; the partition, and per feature set what is in the profiles written of it.
_KEPT: Final = f"""
local marks_seconds = {MARKS_SECONDS}
local function kept(key, field, least)
  local have = tonumber(redis.call('HGET', key, field))
  return least == '' or (have and have >= tonumber(least))
end
"""
ADVANCE: Final = (
    _KEPT
    + """
if not kept(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], marks_seconds)
for i = 2, #KEYS do
  if redis.call('TYPE', KEYS[i]).ok ~= 'hash' then redis.call('DEL', KEYS[i]) end
  redis.call('HSET', KEYS[i], ARGV[4], ARGV[3 + i])
  redis.call('EXPIRE', KEYS[i], marks_seconds)
end
return 1
"""
)
# KEYS: progress of this process, written partitions, mark, progress.
# ARGV: field, least, offset it has caught up to, epoch, partitions in all.
# 0: data are lost; 1: the partition is noted; 2: all partitions are, and the mark is set.
CAUGHT_UP: Final = (
    _KEPT
    + """
if not kept(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
redis.call('HSETNX', KEYS[4], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[4], marks_seconds)
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], marks_seconds)
if redis.call('SCARD', KEYS[2]) < tonumber(ARGV[5]) then return 1 end
redis.call('SET', KEYS[3], ARGV[4], 'EX', marks_seconds)
redis.call('DEL', KEYS[2])
return 2
"""
)
# All profiles come through here, whatever their feature set: where those of ours are complete, those of a set whose job runs beside are so
# up to the same offsets, and the sink that is of that set later goes on from there.
# KEYS: our progress, our mark, the other set's mark, its progress. ARGV: our epoch, the other set's.
VOUCH: Final = f"""
local marks_seconds = {MARKS_SECONDS}
local ours = redis.pcall('GET', KEYS[2])
if type(ours) ~= 'string' or (tonumber(ours) or -1) < tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[4])
local progress = redis.call('HGETALL', KEYS[1])
if #progress > 0 then
  redis.call('HSET', KEYS[4], unpack(progress))
  redis.call('EXPIRE', KEYS[4], marks_seconds)
end
local before = redis.pcall('GET', KEYS[3])
if type(before) ~= 'string' or (tonumber(before) or -1) < tonumber(ARGV[2]) then redis.call('SET', KEYS[3], ARGV[2]) end
redis.call('EXPIRE', KEYS[3], marks_seconds)
return 1
"""
