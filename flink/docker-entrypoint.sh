#!/bin/bash
# What a Flink operator expects of an image: the first word picks the process, anything else is run as it is.
# The native mode passes whole command lines (kubernetes-jobmanager.sh ..., kubernetes-taskmanager.sh ...).
set -e
case "$1" in
  standalone-job) shift; exec "$FLINK_HOME/bin/standalone-job.sh" start-foreground "$@" ;;
  jobmanager|taskmanager) name=$1; shift; exec "$FLINK_HOME/bin/$name.sh" start-foreground "$@" ;;
  *) exec "$@" ;;
esac
