#!/bin/bash
# A batch queue of this one machine: munged, slurmctld and slurmd, on loopback, as root.
#
#     slurm.sh start DIR CONTROLLER_PORT NODE_PORT     leaves DIR/slurm.conf (for SLURM_CONF)
#     slurm.sh stop DIR
#
# DIR is new and its path short: it holds munge's socket. Every file of the three daemons is there,
# so that a run which died before leaves nothing that the next one meets.
set -euo pipefail
action=$1 dir=$2
export SLURM_CONF=$dir/slurm.conf

if [[ $action == stop ]]; then
    [[ ! -s $SLURM_CONF ]] || timeout 5 scancel --quiet --user "$(id -un)" || true
    for daemon in slurmd slurmctld munge/munged; do
        [[ -s $dir/$daemon.pid ]] || continue
        pid=$(cat "$dir/$daemon.pid")
        kill "$pid" || continue
        for _ in $(seq 50); do  # it writes its state on the way out
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    done
    exit
fi

controller_port=$3 node_port=$4 host=$(hostname -s)
mkdir -p "$dir"/{munge,state,spool}
chmod 755 "$dir" "$dir/munge"
dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 status=none
chmod 600 "$dir/munge/key"
chown -R munge: "$dir/munge"
socket=$dir/munge/socket
# --force: it would refuse folders below a world-writable one.
setpriv --reuid=munge --regid=munge --clear-groups /usr/sbin/munged --force \
    --key-file="$dir/munge/key" --socket="$socket" --pid-file="$dir/munge/munged.pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" 2>"$dir/munge/start.log"

cat >"$SLURM_CONF" <<CONFIG
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=2
MailProg=/bin/true
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=normal Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
CONFIG
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N "$host"
for _ in $(seq 60); do
    if [[ $(sinfo --noheader --format %T 2>/dev/null) == idle ]]; then exit; fi
    sleep 0.5
done
tail -n 20 "$dir"/*.log "$dir/munge/log" >&2
exit 1
