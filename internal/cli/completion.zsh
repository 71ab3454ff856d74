#compdef @NAME@
# zsh completion for @NAME@.

_@NAME@() {
  local line kind
  local -a lines described
  lines=("${(@f)$("${words[1]}" __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
  kind=${lines[1]}
  if [[ $PREFIX == --*=* ]]; then compset -P '*='; fi
  case $kind in
    files) _files ;;
    directories) _files -/ ;;
    words)
      for line in "${(@)lines[2,-1]}"; do
        if [[ -z $line ]]; then continue; fi
        line=${line//:/\\:}
        described+=("${line/$'\t'/:}")
      done
      _describe -t words word described
      ;;
  esac
}

if [[ ${funcstack[1]} == _@NAME@ ]]; then
  _@NAME@ "$@"
else
  compdef _@NAME@ @NAME@
fi
