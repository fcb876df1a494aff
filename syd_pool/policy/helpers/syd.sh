# esyd: speak to the sandbox from a shell; for sh, bash and zsh.   eval "$(syd --sh)"   or   . /dev/syd.sh
#
#   esyd COMMAND...                  give commands, each as after -m: esyd sandbox/read:on 'deny/read+/etc/shadow'
#   esyd check                       is there a sandbox, and may I speak to it?
#   esyd enable|disable CATEGORIES   sandbox/CATEGORIES:on, :off
#   esyd enabled CATEGORIES          are they on?
#   esyd allow|deny|warn|filter|stop|abort|kill|exit CATEGORIES PATTERN...      add rules
#   esyd undo ACTION CATEGORIES PATTERN...       take the last such rules away
#   esyd clear ACTION CATEGORIES PATTERN...      take all such rules away
#   esyd default ACTION CATEGORIES   what happens where no rule matches
#   esyd lock [STATE]                on, off, exec, ipc, drop or read; default: on
#   esyd load PROFILE|DESCRIPTOR     a built-in profile, or a file open for reading
#   esyd exec PROGRAM [ARGUMENT...]  run it outside the sandbox
#   esyd state                       the rules as JSON
#   esyd stat|dump|reset|panic|ghost
#
# The status is 0 if it was done, 1 if it was refused (or the answer is no), 2 if it is not understood here.
# Everything is done in this very shell, since with lock:exec nobody else is listened to.

_esyd_say() {
	[ -c "/dev/syd/$1" ] && return 0
	[ -c /dev/syd ] && printf 'esyd: refused: %s\n' "$1" >&2 || printf 'esyd: nobody listens\n' >&2
	return 1
}

_esyd_rules() {
	_esyd_head=$1 _esyd_status=0
	shift
	for _esyd_one in "$@"; do
		_esyd_say "$_esyd_head$_esyd_one" || _esyd_status=1
	done
	return "$_esyd_status"
}

_esyd_usage() {
	printf 'esyd: %s: see the head of "syd --sh"\n' "$1" >&2
	return 2
}

esyd() {
	[ $# -gt 0 ] || { _esyd_usage 'what?'; return; }
	case $1 in
	check)
		[ -c /dev/syd ]
		;;
	enable | disable | enabled)
		[ $# -eq 2 ] || { _esyd_usage "$1 takes categories"; return; }
		case $1 in
		enable) _esyd_say "sandbox/$2:on" ;;
		disable) _esyd_say "sandbox/$2:off" ;;
		enabled) [ -c "/dev/syd/sandbox/$2?" ] ;;
		esac
		;;
	allow | deny | warn | filter | stop | abort | kill | exit)
		[ $# -gt 2 ] || { _esyd_usage "$1 takes categories and patterns"; return; }
		_esyd_prefix=$1/$2+
		shift 2
		_esyd_rules "$_esyd_prefix" "$@"
		;;
	undo | clear)
		[ $# -gt 3 ] || { _esyd_usage "$1 takes an action, categories and patterns"; return; }
		_esyd_prefix=$2/$3-
		[ "$1" = undo ] || _esyd_prefix=$2/$3^
		shift 3
		_esyd_rules "$_esyd_prefix" "$@"
		;;
	default)
		[ $# -eq 3 ] || { _esyd_usage 'default takes an action and categories'; return; }
		_esyd_say "default/$3:$2"
		;;
	lock)
		[ $# -lt 3 ] || { _esyd_usage 'lock takes one state'; return; }
		_esyd_say "lock:${2-on}"
		;;
	load)
		[ $# -eq 2 ] || { _esyd_usage 'load takes a profile or a descriptor'; return; }
		_esyd_say "load/$2"
		;;
	exec)
		[ $# -gt 1 ] || { _esyd_usage 'exec takes a program'; return; }
		_esyd_prefix=$2 _esyd_unit=$(printf '\037')
		shift 2
		for _esyd_one in "$@"; do
			_esyd_prefix=$_esyd_prefix$_esyd_unit$_esyd_one
		done
		_esyd_say "cmd/exec!$_esyd_prefix"
		;;
	state)
		while IFS= read -r _esyd_one; do
			printf '%s\n' "$_esyd_one"
		done </dev/syd
		;;
	*)
		_esyd_rules '' "$@"
		;;
	esac
}
