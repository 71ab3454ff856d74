package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Retry is a Shell that connects again if sshd closes the connection before the login. sshd
// does this when many clients log in at the same time (MaxStartups in sshd_config(5)): by
// default from 10 unfinished logins on, with a probability of 30 % and more.
//
// It does not retry if anything may have reached the node: not after other errors, and not
// if the script has printed anything or read input.
type Retry struct {
	Shell    Shell
	Attempts int           // maximum number of attempts; 0: Limit alone decides
	Limit    time.Duration // the last attempt starts within Limit after the first; 0: 90 s
}

// The delay before an attempt doubles from firstDelay to longestDelay. Half of it is random,
// so that connections that were closed at the same time are not retried at the same time.
const (
	firstDelay   = 500 * time.Millisecond
	longestDelay = 8 * time.Second
)

// Run implements Shell.
func (r *Retry) Run(ctx context.Context, node string, script Script, stdin io.Reader, stdout io.Writer) error {
	limit := r.Limit
	if limit <= 0 {
		limit = 90 * time.Second
	}
	started, delay := time.Now(), firstDelay
	for attempt := 1; ; attempt++ {
		in, out := newInput(stdin), &recorder{w: stdout}
		err := r.Shell.Run(ctx, node, script, in.reader(), out)
		closed := (*Error)(nil)
		if !errors.As(err, &closed) || !closed.beforeLogin || out.written.Load() || !in.rewind() {
			return err
		}
		wait := delay/2 + rand.N(delay/2)
		delay = min(2*delay, longestDelay)
		if attempt == r.Attempts || time.Since(started)+wait > limit {
			closed.Text += fmt.Sprintf(" (%d attempts in %v)", attempt, time.Since(started).Round(time.Second))
			closed.Hint = "sshd on the node or on the jump host closes connections when many clients log in at the same time: lower --parallel, or raise MaxStartups in sshd_config(5)"
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &Error{Node: node, Kind: Interrupted, Text: context.Cause(ctx).Error()}
		}
	}
}

// The messages of ssh for a connection that was closed during the exchange of versions or
// keys, before the login. The first line names the step, in the form of OpenSSH 7 and later;
// ssh may add the second line.
var (
	atBanner = regexp.MustCompile(`^(kex|ssh)_exchange_identification: (read: )?Connection (closed by remote host|reset by peer)|` +
		`^(banner exchange|ssh_exchange_identification): Connection (to|from) .*: (Connection reset by peer|Broken pipe)`)
	afterBanner = regexp.MustCompile(`^Connection (closed|reset) by (\S+ port \d+|remote host)\.?$`)
)

// closedBeforeLogin returns the line in ssh's standard error that reports that the
// connection was closed before the login, or "" if this is not certain. Such lines must be
// the last ones, because output of the node after the login could look the same.
func closedBeforeLogin(stderr string) (line string) {
	for l := range strings.Lines(stderr) {
		l = strings.TrimSpace(l)
		switch {
		case l == "":
		case strings.HasPrefix(l, "stdio forwarding failed"):
			return "" // the jump host cannot reach the node, for which load is no explanation
		case atBanner.MatchString(l):
			line = l
		case !afterBanner.MatchString(l):
			line = ""
		}
	}
	return line
}

// input is the standard input of one attempt. After the attempt, it returns EOF, so that a
// goroutine that still reads it takes nothing from the next attempt.
type input struct {
	mu            sync.Mutex
	r             io.Reader
	start         io.Seeker // nil: r cannot be read again from the start
	started, done bool
}

func newInput(r io.Reader) *input {
	in := &input{r: r}
	in.start, _ = r.(io.Seeker)
	return in
}

// reader returns the standard input for the attempt, or nil if r is nil.
func (in *input) reader() io.Reader {
	if in.r == nil {
		return nil
	}
	return in
}

func (in *input) Read(p []byte) (int, error) {
	in.mu.Lock()
	if in.done {
		in.mu.Unlock()
		return 0, io.EOF
	}
	in.started = true
	if in.start != nil { // reading does not block, and must not overlap with the seek
		defer in.mu.Unlock()
		return in.r.Read(p)
	}
	in.mu.Unlock()
	return in.r.Read(p)
}

// WriteTo implements io.WriterTo. If r cannot be read again, it writes itself, for which it may have
// a faster way than Read.
func (in *input) WriteTo(w io.Writer) (int64, error) {
	in.mu.Lock()
	if in.done || in.start != nil {
		in.mu.Unlock()
		return io.Copy(w, struct{ io.Reader }{in})
	}
	in.started = true
	in.mu.Unlock()
	return io.Copy(w, in.r)
}

// rewind ends the attempt, and reports whether the next one can read the whole input.
func (in *input) rewind() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.done = true
	if !in.started {
		return true
	}
	if in.start == nil {
		return false
	}
	_, err := in.start.Seek(0, io.SeekStart)
	return err == nil
}

// recorder records whether anything was written.
type recorder struct {
	w       io.Writer
	written atomic.Bool
}

func (r *recorder) Write(p []byte) (int, error) {
	r.written.Store(true)
	return r.w.Write(p)
}
