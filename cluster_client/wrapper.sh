#!/bin/bash -p
@HEADER@
# Claims the job's directory, runs the user's script as a child, records how it ended.
# Ends with the script's exit code, or 128 + N after signal N; 121: a duplicate; 122: the script did not start.
# -p: no BASH_ENV file, exported function or SHELLOPTS of the user acts in here; the script still gets all of them.
# One brace group, so that bash reads the whole file first: cut short, it is a syntax error and nothing of it runs.
# (Cut within a conditional, bash 5.2 ends with 0 after the syntax error; hence the trap.)
trap 'exit 122' EXIT
case $- in *p*) ;; *) exec /bin/bash -p -- "$0" "$@" ;; esac   # started as "bash FILE": the first line was ignored
# What acts on bash with -p too is kept for the script alone: a depth of functions, a limit of `read`, old and strict
# behaviour (before 5.1 posix mode could not even parse this file), the meaning of [a-z].
_w_kept=()
for _w_s in FUNCNEST TMOUT BASH_COMPAT POSIXLY_CORRECT LC_ALL; do [[ ${!_w_s+x} ]] && _w_kept+=("$_w_s=${!_w_s}"); done
set +o posix; unset FUNCNEST TMOUT BASH_COMPAT POSIXLY_CORRECT LC_ALL; LC_ALL=C
{
trap - EXIT

# Names begin with _w_: a plain name could be one of the user's exported variables.
_w_tag=@TAG@ _w_dir=@CONTROL@ _w_hints=@HINTS@ _w_sha256=@SHA256@
IFS=$' \t\n'; set -f
@IDENTITY@
read -r _w_host </proc/sys/kernel/hostname                     # not $HOSTNAME: sbatch carries the login node's along
_w_clock() { if ((BASH_VERSINFO > 4)); then _w_now=${EPOCHREALTIME/,/.}; else printf -v _w_now '%(%s)T' -1; fi; }
_w_clock; _w_start=$_w_now
_w_path=/usr/bin:/bin:$PATH                                    # the script's PATH may be anything
_w_signals='HUP INT QUIT TERM USR1 USR2 XCPU'

_w_write() {    # FILE TEXT: dd, because bash's own > neither syncs nor sees EDQUOT at close; an existing FILE is
  # overwritten in place and TEXT padded, so that a record whose room was taken at the start can't fail for lack of it
  printf '%-510s\n' "$2" | PATH=$_w_path dd of="$1" conv=notrunc,fsync 2>/dev/null && return
  PATH=$_w_path rm -f "$1" 2>/dev/null; return 1
}
_w_hint() { { : >"$_w_hints/$_w_tag.$1.$_w_task.$_w_run"; } 2>/dev/null; }
_w_record() {   # KIND EXIT WORDS: the record by rename, then an empty file among the hints
  local e name=$1.$_w_task.$_w_run
  [[ $1 == exit ]] || name+=.$_w_host.$$                       # many may fail; the one that runs has one record a run
  _w_clock
  printf -v e '{"v":1,"kind":"%s","tag":"%s","id":"%s","task":"%s","run":"%s","exit":%s,"start":%s,"end":%s,"host":"%s","words":"%s"}' \
    "$1" "$_w_tag" "${_w_id//[\"\\]/_}" "$_w_task" "$_w_run" "$2" "$_w_start" "$_w_now" "${_w_host//[\"\\]/_}" "${3//[^ -!#-[\]-~]/?}"
  _w_write "$_w_dir/.$name.new" "$e" && PATH=$_w_path mv -fT "$_w_dir/.$name.new" "$_w_dir/$name" 2>/dev/null
  _w_hint "$1"
}
_w_refuse() {   # WORDS: 122, so that no scheduler calls it a success
  echo "hpc: the job did not start: $1" >&2
  _w_record refused 122 "$1"; exit 122
}

# 1. The claim. Only what the file says counts, not what ln says: over NFS one's own ln can fail with EEXIST.
_w_read_claim() { _w_owner=; { read -r _w_owner <"$_w_dir/claim"; } 2>/dev/null; }
_w_read_claim
if [[ ! $_w_owner ]]; then
  _w_new=$_w_dir/.claim.$_w_host.$$
  PATH=$_w_path rm -f "$_w_new" 2>/dev/null
  _w_write "$_w_new" "$_w_id"$'\n'"$_w_host" || _w_refuse "could not write in the job's directory $_w_dir (full, over quota, or removed)"
  PATH=$_w_path ln -T "$_w_new" "$_w_dir/claim" 2>/dev/null
  PATH=$_w_path rm -f "$_w_new" 2>/dev/null
  _w_read_claim
fi
[[ $_w_owner ]] || _w_refuse "could not claim the job's directory $_w_dir"
# A duplicate says nothing on stderr: its output file may be the other one's.
[[ $_w_owner == "$_w_id" ]] || { _w_record duplicate 121 "claimed by $_w_owner"; exit 121; }

# 2. The script: the very bytes that were submitted, and its interpreter as the kernel would read it, so that neither
# the executable bit nor a noexec mount matters.
_w_sum=$(PATH=$_w_path sha256sum <"$_w_dir/script" 2>/dev/null)
[[ ${_w_sum%% *} == "$_w_sha256" ]] || _w_refuse "the script is not the one that was submitted (changed, or can't be read)"
IFS= read -r _w_line <"$_w_dir/script"
[[ $_w_line =~ ^'#!'[[:blank:]]*([^[:blank:]]+)[[:blank:]]*(.*[^[:blank:]])?[[:blank:]]*$ ]] || _w_refuse "the script's first line is not #! and an interpreter"
_w_command=("${BASH_REMATCH[1]}" ${BASH_REMATCH[2]:+"${BASH_REMATCH[2]}"} "$_w_dir/script" "$@")
[[ -f ${_w_command[0]} && -x ${_w_command[0]} ]] || _w_refuse "there is no interpreter ${_w_command[0]} on $_w_host"

# The room for the record of its end: the job may fill the disk.
_w_write "$_w_dir/.exit.$_w_task.$_w_run.new" "" || _w_refuse "could not write in the job's directory $_w_dir (full, or over quota)"

# 3. The script runs in the foreground of a keeper: a shell that waits for a foreground child tells its status exactly,
# whatever signals arrive meanwhile, which `wait` on a background child does not.
# Signals that reached the wrapper alone are passed on; those that reached all of the job the script has had already
# (a second TERM means "drop everything" to many programs). A witness tells the two apart: it dies of what reaches all.
exec 9<> <(:) 6<> <(:)                                         # pipes of our own: keeper -> wrapper -> script
_w_post_witness() {
  exec 8>&- 8> >(
    ulimit -c 0; exec 9>&- 7>&- 6>&- >/dev/null 2>&1
    trap : INT QUIT; trap - $_w_signals                        # bash has INT and QUIT ignored in the background
    PATH=$_w_path exec cat                                     # till the wrapper is gone; bash would never die of QUIT
  )
  _w_witness=$!
}
_w_pending=
for _w_s in $_w_signals; do trap "_w_pending+='$_w_s '" "$_w_s"; done
_w_post_witness
(
  trap : $_w_signals
  exec 8>&-                                                    # the witness watches the wrapper, not the keeper
  (
    trap : INT QUIT; trap - $_w_signals
    echo "pid $BASHPID" >&9                                    # from here on a signal acts; before, one may get lost
    # Till the wrapper has seen to the earlier ones. A whole `read` would make bash catch signals that exec then forgets.
    until read -t 0 -u 6; do kill -0 $$ || exit; PATH=$_w_path sleep 0.005; done
    ((${#_w_kept[@]})) && export "${_w_kept[@]}"
    exec 9>&- 6>&- 2>&7 7>&-
    exec "${_w_command[@]}"
  ) <&0
  echo "end $?" >&9
) <&0 7>&2 2>/dev/null &
_w_keeper=$!
exec 2>/dev/null
_w_hint start

_w_pid= _w_end=
_w_hear() {     # all that the keeper has said. No `read -t SECONDS`: at its limit it throws away what it has read, and
  local line    # a stopped job is long past any limit when it goes on. A line is there as a whole or not at all.
  while read -t 0 -u 9; do
    IFS= read -r -u 9 line
    case $line in pid\ *) _w_pid=${line#* } ;; end\ *) _w_end=${line#* } ;; esac
  done
}
_w_pass_on() {  # each pending signal, unless the witness died of it; never in a trap
  local s i
  while [[ $_w_pending ]]; do
    s=${_w_pending%% *} _w_pending=${_w_pending#* }
    for i in 1 2 3 4 5; do
      kill -0 "$_w_witness" || break
      PATH=$_w_path sleep 0.02
    done
    if kill -0 "$_w_witness"; then
      [[ $_w_pid && ! $_w_end ]] && kill -s "$s" "$_w_pid"
    else
      _w_post_witness
      _w_pending=${_w_pending//"$s "/}                         # the same one, heard while we looked
    fi
  done
}
until _w_hear; [[ $_w_pid$_w_end ]]; do kill -0 $_w_keeper || break; PATH=$_w_path sleep 0.005; done
if [[ $_w_pending && $_w_pid && ! $_w_end ]]; then             # the script may not have had it, and has not begun yet
  _w_early=$_w_pending _w_pending=
  for _w_s in $_w_early; do kill -s "$_w_s" "$_w_pid"; done
  kill -0 "$_w_witness" || _w_post_witness
fi
echo >&6
_w_status=
while [[ ! $_w_end ]] && kill -0 $_w_keeper; do                # bash 5.2 can wait for ever for one that is gone
  [[ $_w_pending ]] || { wait $_w_keeper; _w_status=$?; }
  _w_hear
  [[ $_w_end ]] || _w_pass_on
done
trap '' $_w_signals                                            # nothing may stop the record now
_w_hear
if [[ ! $_w_end && $_w_pid ]]; then                            # with its keeper shot nobody would know how it ends
  kill -KILL "$_w_pid"; _w_end=137
elif [[ ! $_w_end ]]; then                                     # the signal came before the script had begun
  ((_w_status > 128 && _w_status < 193)) && _w_end=$_w_status || _w_end=143
fi

# 4. The record, then the same end as the script's.
_w_record exit "$_w_end" ""
exit "$_w_end"
}
