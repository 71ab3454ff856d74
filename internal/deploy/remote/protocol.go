package remote

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The protocol of one session. At first, the login shell uses the stream: its start-up
// files may print anything, and may read the input. Therefore nnf-deploy sends nothing
// before the command has reported that it runs, and takes only lines with the marker of
// the session as an answer.
//
//	node: MARKER ready                     the command runs; the start-up files have finished
//	host: MARKER LENGTH SHA256, the text   the script inside its wrapper
//	node: MARKER started                   the text arrived unchanged; otherwise: MARKER damaged
//	host: the standard input of the script
//	node: MARKER LENGTH TEXT               for each line that the script prints
//	node: MARKER exit CODE LINES           the script has exited, after LINES lines
//
// A marker may be anywhere in a line, after the output of another program without a newline.
// Each session has a new marker. The command does not contain it in the form that the node
// prints, so the echo of a shell that prints its command is not an answer.
//
// Both ends belong to the same nnf-deploy, and nothing of the protocol is stored on the
// node, so versions may change it.

// session identifies one run of a script.
type session struct{ id string }

func newSession() (session, error) {
	b := make([]byte, 8)
	_, err := rand.Read(b)
	return session{hex.EncodeToString(b)}, err
}

const markerPrefix = "nnf-deploy:"

func (s session) marker() string { return markerPrefix + s.id }

// command returns the command line for the login shell of the node. Every login shell
// accepts it, even if it is not a POSIX shell: the script is one word in single quotes
// without quotes, line breaks, backslashes and exclamation marks. dd reads byte by byte,
// because the script would not get input that dd has read in advance.
func (s session) command(sudo bool) string {
	prefix := "exec "
	if sudo {
		prefix += "sudo -n "
	}
	return prefix + `sh -c 'n=` + s.id + `; m=` + markerPrefix + `$n; PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH; LC_ALL=C; export PATH LC_ALL; ` +
		`echo; echo "$m ready"; ` +
		`for p in dd sha256sum; do command -v $p >/dev/null || { echo "$m missing $p"; exit 126; }; done; ` +
		`read -r a l s; t=; if [ "$a" = "$m" ]; then t=$(dd bs=1 count="$l" 2>/dev/null; echo .); t=${t%.}; fi; ` +
		`case $(printf %s "$t" | sha256sum) in "$s "*) eval "$t";; esac; ` +
		`echo "$m damaged"; exit 125'`
}

// The wrapper prefixes the lines of a script with the marker and their length, and reports
// the exit code after them. It is part of the verified text, so no line of the script can
// run outside it.
const (
	wrapperBefore = "echo \"$m started\"\n{ (\n"
	wrapperAfter  = "\n)\necho \"$m $?\"; } | {\nc=125 i=0 e=\nwhile [ -z \"$e\" ] && IFS= read -r l; do\n" +
		"case $l in *\"$m \"*) e=1 c=${l##*\"$m \"} l=${l%\"$m \"*}; [ -n \"$l\" ] || break ;; esac\n" +
		"i=$((i + 1))\nprintf '%s %s %s\\n' \"$m\" \"${#l}\" \"$l\"\ndone\n" +
		"echo \"$m exit $c $i\"\nexit \"$c\"; }\nexit\n"
)

// frame returns a script in the form in which it is sent.
func (s session) frame(script Script) []byte {
	return frame(s.marker(), wrapperBefore+script.Text+wrapperAfter)
}

func frame(marker, text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return fmt.Appendf(nil, "%s %d %x\n%s", marker, len(text), sum, text)
}

// errFrame is the error for malformed input of ReadFrame.
var errFrame = errors.New("not a framed script")

// frameLimit is the maximum size in bytes of a script that ReadFrame reads.
const frameLimit = 1 << 20

// ReadFrame reads and verifies one framed script, and returns the changed script with a new
// frame. It is for fake nodes; on a real node, the command reads the script.
func ReadFrame(r *bufio.Reader, change func(text string) string) ([]byte, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	f := strings.Fields(line)
	if len(f) != 3 || !strings.HasPrefix(f[0], markerPrefix) {
		return nil, errFrame
	}
	n, err := strconv.Atoi(f[1])
	if err != nil || n < 0 || n > frameLimit {
		return nil, errFrame
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != f[2] {
		return nil, errFrame
	}
	return frame(f[0], change(string(text))), nil
}

const (
	lineLimit  = 1 << 20 // maximum length in bytes of a line of the answer
	noiseLimit = 4 << 10 // bytes of output of other programs that are kept for messages
)

// answer parses the output of a session and writes the lines of the script to out. Its
// memory is bounded, whatever the node sends.
type answer struct {
	marker  string
	out     io.Writer
	ready   chan struct{} // closed when the command has started
	started chan struct{} // closed when the script is verified and has started

	mu      sync.Mutex // Write may still run when ssh has exited
	line    []byte     // the incomplete last line
	tooLong bool       // the line has more than lineLimit bytes
	lines   int        // number of lines written to out
	missing string     // the tool that is missing on the node
	damaged string     // why the answer or the request is unreliable; "": no problem
	exited  bool       // the line "exit" has arrived
	code    int
	noise   tail // output of other programs
	err     error
}

func newAnswer(s session, out io.Writer) *answer {
	return &answer{marker: s.marker() + " ", out: out, ready: make(chan struct{}), started: make(chan struct{}), noise: tail{limit: noiseLimit}}
}

// Write implements io.Writer.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(p)
	for len(p) > 0 && a.err == nil {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if space := lineLimit - len(a.line); len(part) > space {
			part, a.tooLong = part[:max(space, 0)], true
		}
		a.line = append(a.line, part...)
		if i < 0 {
			break
		}
		p = p[i+1:]
		a.parse(a.line, a.tooLong)
		a.line, a.tooLong = a.line[:0], false
	}
	return n, a.err
}

// parse parses one line. A line without the marker is output of another program.
func (a *answer) parse(line []byte, tooLong bool) {
	before, text, ours := bytes.Cut(line, []byte(a.marker))
	if !ours {
		a.addNoise(line)
		return
	}
	a.addNoise(before)
	word, rest, two := strings.Cut(string(text), " ")
	switch {
	case a.exited:
		a.fail("output follows the end of the answer")
	case word == "ready" && !closed(a.ready):
		close(a.ready)
	case !closed(a.ready):
		a.fail("an answer arrived before the command was ready")
	case word == "missing" && !closed(a.started):
		a.missing = rest
	case word == "damaged" && !closed(a.started):
		a.fail("the script arrived damaged")
	case word == "started" && !closed(a.started):
		close(a.started)
	case !closed(a.started):
		a.fail("an answer arrived before the script started")
	case word == "exit":
		a.exit(rest)
	default:
		if !two || tooLong || word != strconv.Itoa(len(rest)) {
			a.fail("another program writes into the output of the script")
			return
		}
		a.lines++
		if a.damaged == "" {
			_, a.err = io.WriteString(a.out, rest+"\n")
		}
	}
}

func (a *answer) exit(text string) {
	code, lines, _ := strings.Cut(text, " ")
	c, err := strconv.Atoi(code)
	n, err2 := strconv.Atoi(lines)
	switch {
	case err != nil || err2 != nil:
		a.fail("another program writes into the output of the script")
	case n != a.lines:
		a.fail(fmt.Sprintf("%d of %d lines arrived", a.lines, n))
	}
	a.exited, a.code = true, c
}

func (a *answer) fail(why string) {
	if a.damaged == "" {
		a.damaged = why
	}
}

// addNoise keeps output of other programs for messages.
func (a *answer) addNoise(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	_, _ = a.noise.Write(line)
	_, _ = a.noise.Write([]byte("\n"))
}

// printed returns the last line that another program has printed, as an addition to a
// message.
func (a *answer) printed() string {
	if !bytes.Contains(a.line, []byte(a.marker)) {
		a.addNoise(a.line)
		a.line = nil
	}
	if line := lastLine(a.noise.String()); line != "" {
		return "; it printed: " + line
	}
	return ""
}

const (
	rerunHint   = "run the command again: it continues where it stopped"
	startUpHint = "start-up files of a login shell must not read input or print anything in non-interactive sessions; in bash, put such commands after: case $- in *i*) ;; *) return ;; esac"
)

// result returns the error of an ssh that has exited with code, or nil.
func (a *answer) result(node string, code int, stderr string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ran := closed(a.ready)
	switch {
	case code == 255 && !a.exited:
		return failure(node, code, stderr, ran)
	case !ran:
		e := failure(node, code, stderr, false)
		if e.Kind == Failed && e.Hint == "" {
			text := fmt.Sprintf("exit code %d", code)
			if e.Text != "" {
				text += ": " + e.Text
			}
			e.Kind, e.Text, e.Hint = NoShell, text+a.printed(), "check that ssh "+node+" true exits with code 0"
		}
		return e
	case a.missing != "":
		return &Error{Node: node, Kind: Failed, Code: code, Text: a.missing + " is missing on this node"}
	case a.damaged != "":
		return &Error{Node: node, Kind: Disturbed, Code: code, Text: a.damaged + a.printed(), Hint: startUpHint}
	case !a.exited:
		return &Error{Node: node, Kind: Lost, Code: code, Text: "the answer is truncated", Hint: rerunHint}
	case a.code != 0:
		return &Error{Node: node, Kind: Failed, Code: a.code, Text: lastLine(stderr)}
	}
	return nil
}

// consumed returns the error for a node on which another program waits for standard input.
func (a *answer) consumed(node string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &Error{Node: node, Kind: Disturbed, Text: "the start-up files of the login shell on " + node + " read standard input" + a.printed(), Hint: startUpHint}
}

// notStarted returns the error for a node on which the command has not started within limit.
func (a *answer) notStarted(node string, limit time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &Error{
		Node: node, Kind: Slow, Text: fmt.Sprintf("the login did not finish within %v", limit) + a.printed(),
		Hint: "check whether the node is overloaded, and that ssh " + node + " true returns; for slow logins, raise --connect-timeout",
	}
}

// notSent returns the error for a node on which the script has not started within limit, although
// the command has.
func (a *answer) notSent(node string, limit time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &Error{
		Node: node, Kind: Slow, Text: fmt.Sprintf("the script did not start within %v", limit) + a.printed(),
		Hint: "check whether the node is overloaded; if it is not, a program that the login shell starts reads the input: " + startUpHint,
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
