# Adds this machine to the Weir server named above: downloads its program, checks it, and runs `weir join`.
#
# Everything is in functions that the last line calls, so that half a script does nothing. curl and wget
# take a proxy from http_proxy, https_proxy and no_proxy, as they did for this script.
# WEIR_INSTALL_FOLDER says where the program goes; by default /usr/local/bin as root, else ~/.local/bin.

say() {
    printf 'weir: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

check_machine() {
    system=$(uname -s)
    [ "$system" = Linux ] || fail "this server has Weir for Linux, and this machine runs $system; build Weir from its source here, then run: weir join $url TOKEN"
    machine=$(uname -m)
    case $machine in
        amd64) machine=x86_64 ;;
        arm64) machine=aarch64 ;;
    esac
    [ "$machine" = "$cpu" ] || fail "this server has Weir for $cpu processors, and this machine has $machine; build Weir from its source here, then run: weir join $url TOKEN"
    has curl || has wget || fail "neither curl nor wget is here; install one of them and run the command again"
    has sha256sum || has shasum || fail "the download could not be verified, because neither sha256sum nor shasum is here; install coreutils and run the command again"
}

choose_folder() {
    if [ -n "${WEIR_INSTALL_FOLDER:-}" ]; then
        folder=$WEIR_INSTALL_FOLDER
    elif [ "$(id -u)" = 0 ]; then
        folder=/usr/local/bin
    elif [ -n "${HOME:-}" ]; then
        folder=$HOME/.local/bin
    else
        fail "HOME is not set; set WEIR_INSTALL_FOLDER to the folder that the program shall go to"
    fi
    # A relative folder would be another one for whoever runs the program later.
    case $folder in
        /*) ;;
        *) folder=$(pwd)/$folder ;;
    esac
    download=$folder/.weir-download.$$
    # The program must go where it can run: /tmp is often mounted noexec.
    if ! mkdir -p "$folder" 2>/dev/null || ! (: >"$download") 2>/dev/null; then
        fail "$folder cannot be written; run the command as root, or set WEIR_INSTALL_FOLDER to a folder of yours: ... | WEIR_INSTALL_FOLDER=FOLDER sh"
    fi
    trap 'rm -f "$download"' EXIT
    trap 'exit 1' HUP INT TERM
}

fetch() {
    if has curl; then
        status=$(curl -sSL --connect-timeout 10 -o "$download" -w '%{http_code}' "$url/join/$token/weir") || return 1
        [ "$status" = 200 ] && return 0
        say "the server answered $status: $(head -c 300 "$download" | tr -d '\000-\037\177')"
        return 1
    fi
    wget -q -O "$download" "$url/join/$token/weir"
}

digest() {
    if has sha256sum; then
        sha256sum <"$1" | cut -d ' ' -f 1
    else
        shasum -a 256 <"$1" | cut -d ' ' -f 1
    fi
}

install_program() {
    if [ -x "$folder/weir" ] && [ "$(digest "$folder/weir")" = "$sha256" ]; then
        say "Weir $version is in $folder already"
        return 0
    fi
    say "downloading Weir $version from $url to $folder"
    fetch || fail "the program could not be downloaded from $url; if a proxy is in between, set no_proxy to leave it out"
    [ "$(digest "$download")" = "$sha256" ] || fail "the download is damaged or incomplete (its SHA-256 is not $sha256); run the command again"
    chmod 755 "$download" || fail "$download cannot be made a program"
    why=$("$download" --version 2>&1 >/dev/null) || fail "the program does not run on this machine; it needs glibc as new as the server's, and a folder that is not mounted noexec. ${why:-No reason was given.}"
    mv -f "$download" "$folder/weir" || fail "$folder/weir cannot be replaced; run the command as its owner"
}

main() {
    umask 022
    check_machine
    choose_folder
    install_program
    rm -f "$download"
    trap - EXIT HUP INT TERM
    case ":${PATH:-}:" in
        *":$folder:"*) ;;
        *) say "$folder is not in PATH; to call it by its name: export PATH=\"$folder:\$PATH\"" ;;
    esac
    # What is left of the pipe is not for it.
    exec "$folder/weir" join "$url" "$token" </dev/null
}

main "$@"
