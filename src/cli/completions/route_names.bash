# Completes the names of routes. Everything else is completed by the generated function above.
_exitgate_with_route_names() {
    _exitgate "$@"
    local program=$1 cur=$2 prev=$3 expected=0 i
    local -a words=() options=() names=()
    [[ $cur == -* ]] && return
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            # bash splits --config=FILE into three words.
            -c | --config)
                i=$((i + 1))
                [[ ${COMP_WORDS[i]} == '=' ]] && i=$((i + 1))
                options=(--config "${COMP_WORDS[i]}")
                ;;
            -*) ;;
            *) words+=("${COMP_WORDS[i]}") ;;
        esac
    done
    case "${words[*]}" in
        'routes show' | 'routes patch' | 'routes rotate' | 'routes report' | 'routes delete' | why)
            [[ $prev != -* || $prev == --json || $prev == --force || $prev == --env ]] && expected=1
            ;;
        connections) [[ $prev == --route ]] && expected=1 ;;
    esac
    ((expected)) || return
    # Names of routes consist of letters, digits and `-`, so splitting the output into words is safe.
    names=($(compgen -W "$("$program" route-names "${options[@]}" 2> /dev/null)" -- "$cur"))
    ((${#names[@]})) && COMPREPLY=("${names[@]}")
}
complete -F _exitgate_with_route_names -o nosort -o bashdefault -o default exitgate
