# bash completion for nnf-deploy.  shellcheck shell=bash

_nnf_deploy() {
  local cur prev word command='' skip='' i flags='@FLAGS@'
  cur=${COMP_WORDS[COMP_CWORD]}
  prev=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()

  # Which command is it?
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
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
    '' | help) mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@' -- "$cur") ;;
    completion) mapfile -t COMPREPLY < <(compgen -W 'bash' -- "$cur") ;;
  esac
}

complete -o filenames -F _nnf_deploy nnf-deploy
