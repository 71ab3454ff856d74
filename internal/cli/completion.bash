# bash completion for @NAME@.  shellcheck shell=bash

_@FUNCTION@() {
  local cur prev word command='' skip='' i flags='@FLAGS@'
  @LOCALS@
  cur=${COMP_WORDS[COMP_CWORD]}
  prev=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()

  # Which command is it?
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    @PASS@
    if [[ $word == '=' ]]; then continue; fi
    if [[ -n $skip ]]; then
      skip=''
      continue
    fi
    case $word in
      @VALUES@) skip=$word ;;
      -*) ;;
      *) [[ -n $command ]] || command=$word ;;
    esac
  done

  if [[ $prev == '=' ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
  if [[ $cur == '=' ]]; then cur=''; prev=${COMP_WORDS[COMP_CWORD - 1]}; fi
  case $prev in
    @WORDS@
  esac

  case $command in
    @CASES@
  esac
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    return
  fi
  case $command in
    @ARGUMENTS@
  esac
}

complete -o filenames -F _@FUNCTION@ @NAME@
