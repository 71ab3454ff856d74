package remote

import (
	"fmt"
	"strings"
)

// Kind classifies the errors of a Shell.
type Kind int

// The kinds of errors, by the action that they require.
const (
	Failed      Kind = iota // the script failed: see Code and Text
	Unreachable             // no connection
	HostKey                 // the host key is not accepted: another host may answer
	Denied                  // the login was refused
	Root                    // the login is not root, and sudo does not work
	Lost                    // the connection broke when the command was running
	Program                 // ssh itself cannot be run
	Interrupted             // the context was cancelled
	NoShell                 // the login shell does not run the command
	Slow                    // the login or the start of the script takes too long
	Disturbed               // start-up files of the login shell read the input or print into the output
)

// Error is the error of Shell.Run.
type Error struct {
	Node string
	Kind Kind
	Code int    // exit code of the script, if Kind is Failed
	Text string // the decisive line of ssh's standard error, or a description
	Hint string // the next action

	beforeLogin bool // the connection was closed before the login
}

func (e *Error) Error() string {
	text := e.Text
	if text == "" {
		text = fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Kind.String() + ": " + text
}

func (k Kind) String() string {
	return [...]string{"the script failed", "not reachable", "its host key is not accepted", "the login was refused", "the login is not root",
		"the connection broke", "ssh cannot be run", "interrupted", "the login shell does not run commands", "the login takes too long", "the login shell interferes with the connection"}[k]
}

// sshErrors are parts of the messages of ssh, which are not localized. The first match
// decides.
var sshErrors = []struct {
	words, hint string
	kind        Kind
}{
	{"Host key verification failed", "if the node was reinstalled, add its new key to known_hosts; otherwise find out which host answers", HostKey},
	{"No matching host key", "ssh does not accept this type of host key: see HostKeyAlgorithms in ssh_config(5)", HostKey},
	{"Permission denied (", "check that ssh NODE true works without a prompt: the agent must have the key, and the user must be right (--user)", Denied},
	{"Too many authentication failures", "the agent offers too many keys: name the right one in ssh_config (IdentityFile, IdentitiesOnly)", Denied},
	{"Could not resolve hostname", "this host cannot resolve the name: check DNS and /etc/hosts, or set HostName in ssh_config", Unreachable},
	{"Connection refused", "the node is up, but sshd does not run, or uses another port", Unreachable},
	{"Connection timed out", "check that the node is up", Unreachable},
	{"timed out", "check that the node is up", Unreachable},
	{"No route to host", "check that the node is up", Unreachable},
	{"Network is unreachable", "check the route to its network", Unreachable},
	{"Bad configuration option", "check --ssh-option and ssh_config", Program},
	{"command-line", "check --ssh-option", Program},
}

// failure returns the error of an ssh that exited with this code. ran reports whether the
// command has started.
func failure(node string, code int, stderr string, ran bool) *Error {
	e := &Error{Node: node, Code: code, Text: lastLine(stderr)}
	if code != 255 {
		switch {
		case strings.Contains(stderr, "sudo: ") && !ran:
			e.Kind, e.Hint = Root, "allow sudo without a password on the node (NOPASSWD), or log in as root (--user root)"
		case code == 127 && !ran:
			e.Hint = "a basic program such as sh or sudo is missing on the node"
		}
		return e
	}
	if ran {
		e.Kind, e.Hint = Lost, rerunHint
		return e
	}
	e.Kind, e.Hint = Unreachable, "check that ssh NODE true works"
	for _, s := range sshErrors {
		if line, found := lineWith(stderr, s.words); found {
			e.Kind, e.Hint, e.Text = s.kind, s.hint, line
			break
		}
	}
	if line := closedBeforeLogin(stderr); line != "" {
		e.Text, e.beforeLogin = line, true
	}
	e.Hint = strings.ReplaceAll(e.Hint, "NODE", node)
	return e
}

func lineWith(text, words string) (string, bool) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, words) {
			return strings.TrimSpace(line), true
		}
	}
	return "", false
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
