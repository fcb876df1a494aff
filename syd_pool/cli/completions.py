"""syd-pool completions SHELL: made from the option table, so that they cannot go stale.

eval "$(syd-pool completions bash)"                                       # ~/.bashrc
syd-pool completions zsh  > "${fpath[1]}/_syd-pool"
syd-pool completions fish > ~/.config/fish/completions/syd-pool.fish
"""

from __future__ import annotations

import sys
from errno import EINVAL

from syd_pool.cli import ctl
from syd_pool.cli.main import VERBS
from syd_pool.cli.options import OPTIONS, Option
from syd_pool.policy.files import available

OFFERED = tuple(option for option in OPTIONS if not option.unbuilt)
OF_VERB = {
    "check": ["--json", "--help"],
    "syscalls": ["--json", "--help"],
    "ctl": list(ctl.WORDS),
    "exec": ["--help"],
    "completions": ["bash", "zsh", "fish"],
}


def values_of(option: Option) -> list[str]:
    """The words an option's value may be; empty when they cannot be listed."""
    if option.values == "PROFILE":
        return available()
    return [] if option.values == "FILE" else option.values.split()


def names_of(option: Option) -> list[str]:
    """An option as typed: -p and --profile."""
    return [*([f"-{option.short}"] if option.short else []), *([f"--{option.long}"] if option.long else [])]


def bash() -> str:
    """Completion for bash 4.4 and later; after the options, that of the command itself."""
    cases = []
    for option in OFFERED:
        pattern = "|".join(names_of(option))
        if option.values == "FILE":
            cases.append(f'        {pattern}) compopt -o filenames; COMPREPLY=($(compgen -f -- "$word")); return ;;')
        elif values_of(option):
            words = " ".join(values_of(option))
            cases.append(f"        {pattern}) COMPREPLY=($(compgen -W '{words}' -- \"$word\")); return ;;")
        elif option.arg:
            cases.append(f"        {pattern}) return ;;")
    taking = "|".join(name for option in OFFERED if option.arg for name in names_of(option))
    verbs = [
        f"        {verb}) COMPREPLY=($(compgen -W '{' '.join(w)}' -- \"$word\")); return ;;"
        for verb, w in OF_VERB.items()
    ]
    return f"""\
# bash completion of syd-pool and syd; made by `syd-pool completions bash`
_syd_pool() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} first=1 i
    if [[ ${{COMP_WORDS[0]##*/}} == syd-pool ]]; then
        if ((COMP_CWORD == 1)); then
            COMPREPLY=($(compgen -W '{" ".join(VERBS)} --help --version' -- "$word")); return
        fi
        case ${{COMP_WORDS[1]}} in
{chr(10).join("    " + line for line in verbs)}
            run) first=2 ;;
            *) return ;;
        esac
    fi
    for ((i = first; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            --) _command_offset $((i + 1)) 2>/dev/null; return ;;
            {taking}) ((i++)) ;;
            -*) ;;
            *) _command_offset "$i" 2>/dev/null; return ;;
        esac
    done
    case $before in
{chr(10).join(cases)}
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W '{" ".join(n for o in OFFERED for n in names_of(o))}' -- "$word"))
    else
        COMPREPLY=($(compgen -c -- "$word"))
    fi
}}
complete -o default -F _syd_pool syd-pool syd
"""


def zsh() -> str:
    """Completion for zsh, by _arguments."""

    def spec(option: Option) -> list[str]:
        about = option.about.replace("[", "(").replace("]", ")").replace(":", r"\:").replace("'", "’")
        value = ""
        if option.arg:
            action = "_files" if option.values == "FILE" else f"({' '.join(values_of(option))})"
            value = f":{option.arg.lower().replace('[', '').replace(']', '')}:{action if option.values else ' '}"
        names = names_of(option)
        return [f"    '*{name}{'+' if option.arg and len(name) == 2 else ''}[{about}]{value}'" for name in names]

    options = " \\\n".join(line for option in OFFERED for line in spec(option))
    verbs = " ".join(f"'{verb}:{about.replace(':', chr(92) + ':')}'" for verb, about in VERBS.items())
    others = "\n".join(f"        {verb}) compadd -- {' '.join(words)} ;;" for verb, words in OF_VERB.items())
    return f"""\
#compdef syd-pool syd
# zsh completion of syd-pool and syd; made by `syd-pool completions zsh`
_syd_pool_run() {{
    _arguments -s -S \\
{options} \\
    '(-)1:command: _command_names -e' \\
    '*::argument: _normal'
}}
_syd_pool() {{
    [[ $service == syd ]] && {{ _syd_pool_run; return }}
    if (( CURRENT == 2 )); then
        local -a verbs=({verbs})
        _describe verb verbs
        return
    fi
    local verb=$words[2]
    shift words
    (( CURRENT-- ))
    case $verb in
        run) _syd_pool_run ;;
{others}
    esac
}}
if [[ $funcstack[1] == _syd_pool ]]; then _syd_pool "$@"; else compdef _syd_pool syd-pool syd; fi
"""


def fish() -> str:
    """Completion for fish."""
    lines = ["# fish completion of syd-pool and syd; made by `syd-pool completions fish`"]
    for verb, about in VERBS.items():
        lines.append(f"complete -c syd-pool -n __fish_use_subcommand -f -a {verb} -d '{about}'")
    for verb, words in OF_VERB.items():
        lines.append(f"complete -c syd-pool -n '__fish_seen_subcommand_from {verb}' -f -a '{' '.join(words)}'")
    for option in OFFERED:
        parts = [f"-s {option.short}" if option.short else "", f"-l {option.long}" if option.long else ""]
        if option.arg:
            parts.append("-r" if option.values == "FILE" else f"-x -a '{' '.join(values_of(option))}'")
        about = option.about.replace("\\", "\\\\").replace("'", "\\'")
        flags = " ".join(part for part in parts if part)
        lines.append(f"complete -c syd-pool -n '__fish_seen_subcommand_from run' {flags} -d '{about}'")
        lines.append(f"complete -c syd {flags} -d '{about}'")
    lines.append("complete -c syd -xa '(__fish_complete_subcommand)'")
    lines.append("complete -c syd-pool -n '__fish_seen_subcommand_from run' -xa '(__fish_complete_subcommand)'")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def main(words: list[str]) -> int:
    """Print the completions of one shell.  Returns the exit status."""
    if len(words) == 1 and words[0] in SHELLS:
        sys.stdout.write(SHELLS[words[0]]())
        return 0
    if words in (["-h"], ["--help"]):
        examples = (__doc__ or "").partition("\n")[2].strip()
        sys.stdout.write(f"usage: syd-pool completions {'|'.join(SHELLS)}\n\n    {examples}\n")
        return 0
    sys.stderr.write(f"syd-pool completions: name one shell: {', '.join(SHELLS)}\n")
    return EINVAL
