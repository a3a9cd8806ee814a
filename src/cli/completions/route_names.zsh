# Completes the names of routes.
_exitgate_route_names() {
    local -a all names options
    local -i i
    # The option --config is also wanted if it stands before the subcommand, where `words` does not contain it.
    all=(${(z)LBUFFER})
    for (( i = 1; i < ${#all}; i++ )); do
        case $all[i] in
            (-c|--config) options=(--config "${(Q)all[i+1]}") ;;
            (--config=*) options=("${(Q)all[i]}") ;;
        esac
    done
    names=(${(f)"$(exitgate route-names $options 2> /dev/null)"})
    compadd -a names
}
