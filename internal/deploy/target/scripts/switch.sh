# shellcheck shell=sh
# Changes the node as the manifest says. If a step fails, it undoes those before it. It
# runs by itself, because the connection may be gone, and leaves its answer in the file
# result.
trap '' HUP INT TERM PIPE
D=$R/var/lib/nnf-deploy stage=$D/stage new=.nnf-deploy-new old=.nnf-deploy-old retired=.retired-by-nnf-deploy
: >"$stage/undo"
: >"$stage/answer"
run=$(cat "$stage/run")
began=$(date +%s)

one_line() { printf %s "$1" | tr '\n\t' '  ' | cut -c1-400; }
tell() { printf 'said\t%s\n' "$(one_line "$1")" >>"$stage/answer"; }
note() { printf 'note\t%s\n' "$(one_line "$1")" >>"$stage/answer"; }

# finish WORD TEXT HINT: writes the answer.
finish() {
  { printf 'result\t%s\t%s\t%s\t%s\n' "$run" "$1" "$(one_line "$2")" "$3"; cat "$stage/answer"; } >"$D/result.new"
  sync "$D/result.new" 2>/dev/null
  mv -f "$D/result.new" "$D/result"
}

# undo reverts what was done, the last first.
undo() {
  bad=
  sed -n '1!G;h;$p' "$stage/undo" >"$stage/undo.now"
  while IFS=' ' read -r how path; do
    case $how in
    back) mv -f "$R$path$old" "$R$path" || bad="$bad $path" ;;
    away) rm -f "$R$path" || bad="$bad $path" ;;
    unretire) mv -f "$R$path$retired" "$R$path" || bad="$bad $path" ;;
    lost) note "the package $path stays new: the one before was not brought by nnf-deploy, and is not on the node" ;;
    package) rpm -U --oldpackage --replacepkgs "$D/packages/$path.rpm" 9>&- || bad="$bad package:$path" ;;
    esac
  done <"$stage/undo.now"
  : >"$stage/undo"
  if [ -f "$stage/made" ]; then
    sort -r "$stage/made" | while IFS= read -r path; do rmdir "$R$path" 2>/dev/null; done
  fi
  systemctl daemon-reload
}

# keep PATH: keeps what is there now, so that it can be put back.
keep() {
  if [ -L "$R$1" ] || [ -e "$R$1" ]; then
    rm -f "$R$1$old"
    ln "$R$1" "$R$1$old" 2>/dev/null || cp -pP "$R$1" "$R$1$old" || return 1
    echo "back $1" >>"$stage/undo"
  else
    echo "away $1" >>"$stage/undo"
  fi
}

# through: the daemons of this run are no longer pending. Those of an earlier run that
# was interrupted stay pending, unless they are of this run, too.
through() {
  grep -vxF -f "$stage/daemons" "$D/pending" >"$D/pending.new"
  if [ -s "$D/pending.new" ]; then mv -f "$D/pending.new" "$D/pending"; else rm -f "$D/pending" "$D/pending.new"; fi
}

clean() {
  while IFS=' ' read -r what _ _ _ path _; do
    case $what in
    file | binary) rm -f "$R$path$old" "$R$path$new" ;;
    esac
  done <"$stage/manifest"
  while IFS=' ' read -r _ path _; do rm -f "$R/$path$old"; done <"$stage/moved"
  rm -rf "$stage"
}

# broken WHAT WHY: a step failed. Puts the old state back, and restarts the daemons that
# were stopped or restarted meanwhile.
broken() {
  undo
  if [ -f "$stage/restarted" ]; then
    while read -r unit; do
      grep -qx "$unit" "$stage/ran" 2>/dev/null && { ready "$unit" 120 || bad="$bad $unit"; }
    done <"$stage/restarted"
  fi
  if grep -qx forget "$stage/manifest"; then
    through
    finish partly "$1: $2" "${3-}"
    clean
    exit 0
  fi
  # The next run has to repair what could not be put back.
  if [ -z "$bad" ]; then
    through
    finish old "$1: $2" "${3-}"
  else
    finish mixed "$1: $2; and this could not be put back:$bad" 'run it again when the cause is gone'
  fi
  clean
  exit 0
}

property() { systemctl show --property="$2" "$1" | sed -n "s/^$2=//p"; }

packages() {
  # The arguments of the shell are the list of packages.
  set --
  while IFS=' ' read -r what member name; do
    [ "$what" = package ] || continue
    set -- "$@" "$stage/$member"
    if [ -f "$D/packages/$name.rpm" ]; then
      echo "package $name" >>"$stage/undo"
    elif rpm -q "$name" >/dev/null 2>&1; then
      echo "lost $name" >>"$stage/undo"
    fi
  done <"$stage/manifest"
  [ $# -gt 0 ] || return 0
  said=$(rpm -U --oldpackage --replacepkgs "$@" 2>&1 9>&-) && return 0
  # Missing dependencies come from the node's repositories.
  case $said in
  *'ailed dependencies'*) if command -v dnf >/dev/null; then said=$(dnf -y -q install "$@" 2>&1 9>&-) && return 0; fi ;;
  esac
  : >"$stage/undo" # a transaction that fails has changed nothing
  broken 'rpm' "$(printf '%s\n' "$said" | grep -v '^warning' | tail -n 5)" 'see the text; nothing was changed'
}

# place MODE OWNER PATH: by one rename.
place() {
  chown "$2" "$R$3$new" && chmod "$1" "$R$3$new" && keep "$3" && mv -fT "$R$3$new" "$R$3"
}

# ready UNIT SECONDS: restarts the unit, and waits until it reports that it is ready.
# After three automatic restarts by systemd it counts as failed. The time that the old
# process needs to end, which may wait for a hook, does not count.
ready() {
  before=$(property "$1" InvocationID) first='' counted=0
  systemctl --no-block restart "$1" 9>&- || return 1
  while [ "$counted" -lt $(($2 * 5)) ]; do
    state=$(property "$1" ActiveState)
    if [ "$(property "$1" InvocationID)" != "$before" ]; then
      restarts=$(property "$1" NRestarts)
      first=${first:-${restarts:-0}}
      case $state in
      active) return 0 ;;
      failed) return 1 ;;
      esac
      [ $((${restarts:-0} - first)) -lt 3 ] || return 1
    fi
    [ "$state" = deactivating ] || counted=$((counted + 1))
    sleep 0.2
  done
  return 1
}

: >"$stage/moved"
unready='' hint=''
{ cat "$D/pending" "$stage/daemons" 2>/dev/null | sort -u >"$D/pending.new" && mv -f "$D/pending.new" "$D/pending"; } || broken 'begin' 'cannot write to /var/lib/nnf-deploy' 'is the file system full?'
while read -r bin; do
  for unit in "$bin.service" "$bin.socket"; do
    if [ "$(property "$unit" ActiveState)" = active ]; then echo "$unit" >>"$stage/ran"; fi
  done
done <"$stage/daemons"

packages
while IFS=' ' read -r what a b c d <&4; do
  case $what in
  file | binary)
    said=$(place "$b" "$c" "$d" 2>&1) || broken "$d" "$said"
    ;;
  folder | newfolder) # MODE OWNER PATH: newfolder changes only a directory that this run has made
    if [ "$what" = newfolder ] && ! grep -qx "$c" "$stage/made" 2>/dev/null; then continue; fi
    said=$({ mkdir -p "$R$c" && chown "$b" "$R$c" && chmod "$a" "$R$c"; } 2>&1) || broken "$c" "$said"
    ;;
  retire) # PATH
    said=$(mv -fT "$R$a" "$R$a$retired" 2>&1) || broken "$a" "$said"
    echo "unretire $a" >>"$stage/undo"
    ;;
  remove) # PATH
    if [ -e "$R$a" ] || [ -L "$R$a" ]; then
      said=$(keep "$a" 2>&1 && rm -f "$R$a" 2>&1) || broken "$a" "$said"
      echo "moved $a" >>"$stage/moved"
    fi
    ;;
  drop) # PATH: not undone
    said=$(rm -f "$R$a" 2>&1) || broken "$a" "$said"
    ;;
  rmdir) rmdir "$R$a" 2>/dev/null ;;
  unit) # PROGRAM: has the program write its units again
    for path in "/etc/systemd/system/$a.service" "/etc/systemd/system/$a.socket"; do
      said=$(keep "$path" 2>&1 && rm -f "$R$path" 2>&1) || broken "$path" "$said"
      echo "moved $path" >>"$stage/moved"
    done
    said=$("$R/usr/bin/$a" install 2>&1 9>&-) || broken "$a install" "$said"
    ;;
  unmake) # PROGRAM: stops it and removes its own units
    if [ -x "$R/usr/bin/$a" ]; then said=$("$R/usr/bin/$a" remove 2>&1 9>&-) || note "$a remove: $said"; fi
    ;;
  erase) # PACKAGE
    said=$(rpm -e "$a" 2>&1 9>&-) || broken "rpm -e $a" "$said"
    ;;
  unkeep) # PROGRAM: it is removed, so there is nothing to go back to or to restart
    rm -f "$D/packages/$a.rpm"
    echo "$a" >>"$stage/daemons"
    ;;
  reload) said=$(systemctl daemon-reload 2>&1) || broken 'systemctl daemon-reload' "$said" ;;
  enable)
    said=$(systemctl reenable "$a" 2>&1) || broken "systemctl enable $a" "$said"
    ;;
  stop) # UNIT
    said=$(timeout 660 systemctl stop "$a" 2>&1 9>&-) || broken "systemctl stop $a" "$said"
    ;;
  start)
    said=$(systemctl start "$a" 2>&1 9>&-) || broken "systemctl start $a" "$said" "journalctl -u $a says why"
    ;;
  ready) # UNIT SECONDS [CLIENT]
    echo "$a" >>"$stage/restarted"
    began_ready=$(date +%s)
    if ! ready "$a" "$b"; then
      status=$(property "$a" StatusText)
      why="$a is not ready after $(($(date +%s) - began_ready)) s${status:+: $status}"
      # systemd's warnings about directives that it is too old for would hide the cause.
      journalctl -u "$a" -n 100 --no-pager -o cat --since "@$began" 2>/dev/null |
        grep -v ': Unknown key ' | tail -n 12 | cut -c1-400 | tr '\t' ' ' | sed 's/^/journal	/' >>"$stage/answer"
      if grep -qx "$a" "$stage/ran" 2>/dev/null; then
        broken 'start' "$why" "journalctl -u $a says why; the old one is in place again"
      fi
      # The old one did not run either, or there was none: putting it back gains
      # nothing, and the next run tries again.
      unready=${unready:-$why} hint=${hint:-"journalctl -u $a says why; run it again when the cause is gone"}
      continue
    fi
    status=$(property "$a" StatusText)
    if [ -n "$status" ]; then tell "$a: $status"; fi
    # As users call it. A site may have moved the socket, so it is no failure.
    if [ -n "$c" ] && [ -x "$R/usr/bin/$c" ]; then
      said=$(timeout 20 "$R/usr/bin/$c" version 2>&1 9>&-) || note "${a%.service} runs, and $c gets no answer from it: $said"
    fi
    ;;
  forget) # removes the directory when the answer has arrived, unless it has packages of other daemons
    rmdir "$D/packages" 2>/dev/null
    [ -e "$D/packages" ] || { printf '%s\n' "$run" >"$D/forget.new" && mv -f "$D/forget.new" "$D/forget"; }
    ;;
  esac
done 4<"$stage/manifest"

# The next run goes back to what runs now.
if grep -q '^package ' "$stage/manifest"; then
  mkdir -p "$D/packages"
  while IFS=' ' read -r what member name; do
    [ "$what" = package ] && mv -f "$stage/$member" "$D/packages/$name.rpm"
  done <"$stage/manifest"
fi
through
if [ -n "$unready" ]; then finish unready "$unready" "$hint"; else finish ok '' ''; fi
clean
