# Completes the names of routes.
function __fish_exitgate_route_names
    set -l words (commandline -opc)
    set -l options
    for i in (seq (count $words))
        switch $words[$i]
            case -c --config
                set options --config $words[(math $i + 1)]
            case '--config=*'
                set options $words[$i]
        end
    end
    exitgate route-names $options 2>/dev/null
end
complete -c exitgate -n "__fish_exitgate_using_subcommand routes; and __fish_seen_subcommand_from show patch rotate report delete" -f -a "(__fish_exitgate_route_names)"
complete -c exitgate -n "__fish_exitgate_using_subcommand connections" -l route -r -f -a "(__fish_exitgate_route_names)"
complete -c exitgate -n "__fish_exitgate_using_subcommand why" -f -a "(__fish_exitgate_route_names)"
