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

// Retry is a Shell that connects again while sshd closes the connection before
// the login. sshd does so when many clients log in at once (MaxStartups in
// sshd_config(5)): by default from 10 unfinished logins on, with a probability of 30 %
// and more.
//
// It retries only what cannot have reached the node: not after another error, and not if
// the script has printed something or has read input.
type Retry struct {
	Shell    Shell
	Attempts int           // connections at most; 0: 10
	Limit    time.Duration // no attempt starts later than this after the first; 0: 1 minute
}

// The delay before an attempt doubles from the first to the longest; half of it
// is random, so that connections that were closed together do not come back
// together.
const (
	firstDelay   = 500 * time.Millisecond
	longestDelay = 8 * time.Second
)

// Run implements Shell.
func (r *Retry) Run(ctx context.Context, node string, script Script, stdin io.Reader, stdout io.Writer) error {
	attempts, limit := r.Attempts, r.Limit
	if attempts <= 0 {
		attempts = 10
	}
	if limit <= 0 {
		limit = time.Minute
	}
	started, delay := time.Now(), firstDelay
	for attempt := 1; ; attempt++ {
		in, out := newInput(stdin), &listening{w: stdout}
		err := r.Shell.Run(ctx, node, script, in.reader(), out)
		closed := (*Error)(nil)
		if !errors.As(err, &closed) || !closed.beforeLogin || out.heard.Load() || !in.again() {
			return err
		}
		wait := delay/2 + rand.N(delay/2)
		delay = min(2*delay, longestDelay)
		if attempt >= attempts || time.Since(started)+wait > limit {
			closed.Text += fmt.Sprintf(" (%d attempts in %v)", attempt, time.Since(started).Round(time.Second))
			closed.Hint = "sshd there, or on the jump host, closes connections when many log in at once: lower --parallel, or raise MaxStartups in sshd_config(5)"
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &Error{Node: node, Kind: Ended, Text: context.Cause(ctx).Error()}
		}
	}
}

// How ssh reports that the connection was closed during the exchange of versions or keys,
// before the login. The first line names the step, in the words of OpenSSH from 7 on;
// ssh may add the second.
var (
	atBanner = regexp.MustCompile(`^(kex|ssh)_exchange_identification: (read: )?Connection (closed by remote host|reset by peer)|` +
		`^(banner exchange|ssh_exchange_identification): Connection (to|from) .*: (Connection reset by peer|Broken pipe)`)
	afterBanner = regexp.MustCompile(`^Connection (closed|reset) by (\S+ port \d+|remote host)\.?$`)
)

// closedBeforeLogin returns the line of ssh's standard error that reports that the
// connection was closed before the login; "" if that is not certain. Such lines must be
// the last ones: output of a node after the login could look the same.
func closedBeforeLogin(stderr string) (line string) {
	for l := range strings.Lines(stderr) {
		l = strings.TrimSpace(l)
		switch {
		case l == "":
		case strings.HasPrefix(l, "stdio forwarding failed"):
			return "" // the jump host cannot reach the node, which load does not explain
		case atBanner.MatchString(l):
			line = l
		case !afterBanner.MatchString(l):
			line = ""
		}
	}
	return line
}

// input is the standard input of one attempt. After the attempt it returns EOF, so that a
// reader that is still blocked takes nothing from the next attempt.
type input struct {
	mu            sync.Mutex
	r             io.Reader
	start         io.Seeker // nil: what was read is lost
	touched, over bool
}

func newInput(r io.Reader) *input {
	in := &input{r: r}
	in.start, _ = r.(io.Seeker)
	return in
}

// reader is what the attempt gets; nil if there is no standard input.
func (in *input) reader() io.Reader {
	if in.r == nil {
		return nil
	}
	return in
}

func (in *input) Read(p []byte) (int, error) {
	in.mu.Lock()
	if in.over {
		in.mu.Unlock()
		return 0, io.EOF
	}
	in.touched = true
	if in.start != nil { // it does not block, and must not be read during the seek
		defer in.mu.Unlock()
		return in.r.Read(p)
	}
	in.mu.Unlock()
	return in.r.Read(p)
}

// again ends the attempt, and reports whether the next one gets all of the input.
func (in *input) again() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over = true
	if !in.touched {
		return true
	}
	if in.start == nil {
		return false
	}
	_, err := in.start.Seek(0, io.SeekStart)
	return err == nil
}

// listening records whether something was printed.
type listening struct {
	w     io.Writer
	heard atomic.Bool
}

func (l *listening) Write(p []byte) (int, error) {
	l.heard.Store(true)
	return l.w.Write(p)
}
