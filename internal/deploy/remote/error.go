package remote

import (
	"fmt"
	"strings"
)

// Kind classifies why a script did not do its work.
type Kind int

// The kinds of errors, by what the administrator has to do about them.
const (
	Failed      Kind = iota // the script itself: see Code and Text
	Unreachable             // no connection
	HostKey                 // another host may answer there
	Denied                  // the login is refused
	Root                    // the login is not root, and sudo does not work
	Lost                    // the connection broke while the script ran
	Program                 // ssh itself cannot be run
	Ended                   // the context ended it
	NoShell                 // the login shell does not run the command
	Disturbed               // the start-up files of the login shell read our input or print into our output
)

// Error is what Run returns.
type Error struct {
	Node string
	Kind Kind
	Code int    // of the script, if Kind is Failed
	Text string // the last line of standard error, unchanged
	Hint string // what to do

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
	return [...]string{"the script failed", "not reachable", "its host key is not the known one", "the login is refused", "no rights of root",
		"the connection broke", "ssh cannot be run", "ended", "the login shell does not run commands", "the login shell disturbs the connection"}[k]
}

// sshErrors are words in the error messages of ssh, which are not translated. The first
// one that is found counts.
var sshErrors = []struct {
	words, hint string
	kind        Kind
}{
	{"Host key verification failed", "if the node was installed anew, take its new key into known_hosts; else find out who answers there", HostKey},
	{"No matching host key", "its kind of host key is not allowed here: see HostKeyAlgorithms in ssh_config(5)", HostKey},
	{"Permission denied (", "try: ssh NODE true; it must work without a question (key in the agent, right user: --user)", Denied},
	{"Too many authentication failures", "the agent offers too many keys: name the right one in ssh_config (IdentityFile, IdentitiesOnly)", Denied},
	{"Could not resolve hostname", "the name is not known here: DNS, /etc/hosts, or HostName in ssh_config", Unreachable},
	{"Connection refused", "the node is up, but sshd is not, or not at this port", Unreachable},
	{"Connection timed out", "is the node up?", Unreachable},
	{"timed out", "is the node up?", Unreachable},
	{"No route to host", "is the node up?", Unreachable},
	{"Network is unreachable", "is there a way to its network?", Unreachable},
	{"Bad configuration option", "see --ssh-option and ssh_config", Program},
	{"command-line", "see --ssh-option", Program},
}

// failure returns the error of an ssh that ended with this code. ran: the command has run.
func failure(node string, code int, stderr string, ran bool) *Error {
	e := &Error{Node: node, Code: code, Text: lastLine(stderr)}
	if code != 255 {
		switch {
		case strings.Contains(stderr, "sudo: ") && !ran:
			e.Kind, e.Hint = Root, "sudo must ask no question there (NOPASSWD), or log in as root: --user root"
		case code == 127 && !ran:
			e.Hint = "a program is missing there that every node has"
		}
		return e
	}
	if ran {
		e.Kind, e.Hint = Lost, again
		return e
	}
	e.Kind, e.Hint = Unreachable, "try: ssh NODE true"
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
