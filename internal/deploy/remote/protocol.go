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

// The protocol of one session. The stream belongs to the login shell first: its
// start-up files may print anything, and may read what is sent. So nothing is
// sent before the command has reported that it runs, and only lines with the session's
// marker are an answer.
//
//	node: MARKER ready                     the command runs; start-up files are through
//	we:   MARKER LENGTH SHA256, the text   the script inside its wrapper
//	node: MARKER begun                     it arrived unchanged; else: MARKER damaged
//	we:   the script's standard input
//	node: MARKER LENGTH TEXT               for each line that the script prints
//	node: MARKER exit CODE LINES           the script has ended, after so many lines
//
// A marker may be anywhere in a line: output of others that lacks a newline precedes it.
// It is new for each session. The command does not contain it as the node prints it, so
// that a shell that echoes its command gives no answer.

// session names one run of a script.
type session struct{ id string }

func newSession() (session, error) {
	b := make([]byte, 8)
	_, err := rand.Read(b)
	return session{hex.EncodeToString(b)}, err
}

const markerPrefix = "nnf-deploy:"

func (s session) marker() string { return markerPrefix + s.id }

// command is what the node's login shell has to run. Every login shell
// understands it, even one that is not a POSIX shell: it is one word in single quotes
// without quotes, line breaks, backslashes and exclamation marks. dd reads byte by byte,
// because input that it read beyond the script would be lost.
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

// The wrapper around a script prefixes its lines with the marker and their length, and
// reports its exit code after them. It is part of the text that is verified, so that no
// line of the script is ever run outside it.
const (
	wrapperBefore = "echo \"$m begun\"\n{ (\n"
	wrapperAfter  = "\n)\necho \"$m $?\"; } | {\nc=125 i=0 e=\nwhile [ -z \"$e\" ] && IFS= read -r l; do\n" +
		"case $l in *\"$m \"*) e=1 c=${l##*\"$m \"} l=${l%\"$m \"*}; [ -n \"$l\" ] || break ;; esac\n" +
		"i=$((i + 1))\nprintf '%s %s %s\\n' \"$m\" \"${#l}\" \"$l\"\ndone\n" +
		"echo \"$m exit $c $i\"\nexit \"$c\"; }\nexit\n"
)

// frame is a script as it is sent.
func (s session) frame(script Script) []byte {
	return frame(s.marker(), wrapperBefore+script.Text+wrapperAfter)
}

func frame(marker, text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return fmt.Appendf(nil, "%s %d %x\n%s", marker, len(text), sum, text)
}

// errFrame reports a malformed request.
var errFrame = errors.New("what was sent is not a framed script")

// frameLimit bounds the script that ReadFrame reads, in bytes.
const frameLimit = 1 << 20

// ReadFrame reads and verifies one framed script, and returns the frame of the changed
// script. It is for fake nodes: on a real node the command reads the script.
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
	lineLimit  = 1 << 20 // of a line of the answer, in bytes
	noiseLimit = 4 << 10 // of the output of others that is kept for messages, in bytes
)

// answer parses the output of a session and writes the script's lines to out. Its memory
// is bounded, whatever the node sends.
type answer struct {
	marker string
	out    io.Writer
	ready  chan struct{} // closed when the command has started
	begun  chan struct{} // closed when the script is verified and has started

	mu      sync.Mutex // Write may still run when ssh has ended
	line    []byte     // not complete yet
	over    bool       // the line has more than lineLimit bytes
	lines   int        // written to out
	missing string     // the tool that the node lacks
	damaged string     // why the answer or the request cannot be trusted
	ended   bool       // "exit" has arrived
	code    int
	noise   tail // output of others
	err     error
}

func newAnswer(s session, out io.Writer) *answer {
	return &answer{marker: s.marker() + " ", out: out, ready: make(chan struct{}), begun: make(chan struct{}), noise: tail{limit: noiseLimit}}
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
		if room := lineLimit - len(a.line); len(part) > room {
			part, a.over = part[:max(room, 0)], true
		}
		a.line = append(a.line, part...)
		if i < 0 {
			break
		}
		p = p[i+1:]
		a.take(a.line, a.over)
		a.line, a.over = a.line[:0], false
	}
	return n, a.err
}

// take parses one line. A line without the marker is output of others.
func (a *answer) take(line []byte, over bool) {
	before, text, ours := bytes.Cut(line, []byte(a.marker))
	if !ours {
		a.keep(line)
		return
	}
	a.keep(before)
	word, rest, two := strings.Cut(string(text), " ")
	switch {
	case a.ended:
		a.fail("there is more after its end")
	case word == "ready" && !closed(a.ready):
		close(a.ready)
	case !closed(a.ready):
		a.fail("it answers before it is ready")
	case word == "missing" && !closed(a.begun):
		a.missing = rest
	case word == "damaged" && !closed(a.begun):
		a.fail("the script was damaged on its way")
	case word == "begun" && !closed(a.begun):
		close(a.begun)
	case !closed(a.begun):
		a.fail("it answers before the script runs")
	case word == "exit":
		a.exit(rest)
	default:
		if !two || over || word != strconv.Itoa(len(rest)) {
			a.fail("another program writes into its lines")
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
		a.fail("another program writes into its lines")
	case n != a.lines:
		a.fail(fmt.Sprintf("%d of its %d lines came", a.lines, n))
	}
	a.ended, a.code = true, c
}

func (a *answer) fail(why string) {
	if a.damaged == "" {
		a.damaged = why
	}
}

// keep keeps output of others for messages.
func (a *answer) keep(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	_, _ = a.noise.Write(line)
	_, _ = a.noise.Write([]byte("\n"))
}

// others returns the last line of the output of others, as an addition to a message.
func (a *answer) others() string {
	if !bytes.Contains(a.line, []byte(a.marker)) {
		a.keep(a.line)
		a.line = nil
	}
	if said := lastLine(a.noise.String()); said != "" {
		return "; it printed: " + said
	}
	return ""
}

const (
	again       = "run it again: it continues where it stopped"
	startUpHint = "start-up files of a login shell must neither read nor print anything where no person sits: in bash, put what does behind: case $- in *i*) ;; *) return ;; esac"
)

// judge returns the error of an ssh that has ended, if there is one.
func (a *answer) judge(node string, code int, stderr string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ran := closed(a.ready)
	switch {
	case code == 255 && !a.ended:
		return failure(node, code, stderr, ran)
	case !ran:
		e := failure(node, code, stderr, false)
		if e.Kind == Failed && e.Hint == "" {
			text := fmt.Sprintf("it ended with exit code %d", code)
			if e.Text != "" {
				text += ": " + e.Text
			}
			e.Kind, e.Text, e.Hint = NoShell, text+a.others(), "try: ssh "+node+" true; it must end with exit code 0"
		}
		return e
	case a.missing != "":
		return &Error{Node: node, Kind: Failed, Code: code, Text: a.missing + " is missing on this node"}
	case a.damaged != "":
		return &Error{Node: node, Kind: Disturbed, Code: code, Text: a.damaged + a.others(), Hint: startUpHint}
	case !a.ended:
		return &Error{Node: node, Kind: Lost, Code: code, Text: "its answer is cut off", Hint: again}
	case a.code != 0:
		return &Error{Node: node, Kind: Failed, Code: a.code, Text: lastLine(stderr)}
	}
	return nil
}

// consumed returns the error of a node where another program read standard input until
// its end.
func (a *answer) consumed(node string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &Error{Node: node, Kind: Disturbed, Text: "the start-up files of the login shell on " + node + " read standard input" + a.others(), Hint: startUpHint}
}

// noStart returns the error of a node on which the command has not started.
func (a *answer) noStart(node string, limit time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &Error{
		Node: node, Kind: NoShell, Text: fmt.Sprintf("the login has not ended after %v", limit) + a.others(),
		Hint: "try: ssh " + node + " true; do the start-up files of its login shell wait for something? for slow logins raise --connect-timeout",
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
