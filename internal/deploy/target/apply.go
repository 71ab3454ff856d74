package target

import (
	"context"
	"crypto/rand"
	_ "embed" // the scripts
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// The scripts as they are run on nodes.
var (
	//go:embed scripts/prelude.sh
	prelude string
	//go:embed scripts/shared.sh
	shared string
	//go:embed scripts/probe.sh
	probeText string
	//go:embed scripts/apply.sh
	applyText string
	//go:embed scripts/collect.sh
	collectText string
	//go:embed scripts/switch.sh
	switchText string

	probeScript   = remote.Script{Name: "probe", Text: bare(prelude + shared + probeText)}
	applyScript   = remote.Script{Name: "apply", Text: bare(prelude + shared + applyText)}
	collectScript = remote.Script{Name: "collect", Text: bare(prelude + shared + collectText)}
)

// bare returns a script without its comment lines.
func bare(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if t := strings.TrimSpace(line); t != "" && !strings.HasPrefix(t, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Steps reports the progress of a node to an observer.
type Steps func(step string)

// after is how long Apply waits for a switch after the connection broke.
const after = 10 * time.Minute

// Apply carries a plan out. Until the switch starts on the node, the end of stop ends
// Apply, and the node stays as it is. From then on Apply waits for the switch until ctx
// ends, even if the connection breaks. For an Outcome that is not ok it returns an
// error, too.
func Apply(ctx, stop context.Context, shell remote.Shell, node string, p *Plan, step Steps) (*Outcome, error) {
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	session, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	staged, through := make(chan struct{}), make(chan struct{})
	answer := &reader{signals: map[string]func(){
		"staged": sync.OnceFunc(func() { close(staged) }),
		"heard":  sync.OnceFunc(func() { close(through) }),
	}}
	in, feed := io.Pipe()
	fed := make(chan error, 1)
	gone := false // "go" was sent: only the node knows its state
	go func() {
		fed <- func() error {
			defer feed.Close()
			a := newArchive(p, run)
			if _, err := fmt.Fprintf(feed, "archive %d\n", a.size); err != nil {
				return nil // the script has ended, and reports why
			}
			if err := a.write(feed); err != nil && !errors.Is(err, io.ErrClosedPipe) {
				return err
			}
			select {
			case <-staged:
			case <-session.Done():
				return nil
			}
			if stop.Err() != nil {
				return nil
			}
			step("switch")
			gone = true
			_, _ = io.WriteString(feed, "go "+run+"\n") // the node reports whether it arrived
			select {
			case <-through:
				_, _ = io.WriteString(feed, "heard "+run+"\n")
			case <-session.Done():
			}
			return nil
		}()
	}()
	halt := context.AfterFunc(stop, func() {
		select {
		case <-staged: // "go" may have been sent: the goroutine above decides
		default:
			cancel(context.Cause(stop))
		}
	})
	defer halt()
	step("upload")
	err = shell.Run(session, node, applyScript, in, &bounded{answer, mostBytes})
	cancel(nil)
	in.Close()
	ferr := <-fed
	switch {
	case ferr != nil:
		return nil, ferr
	case stop.Err() != nil && !gone:
		return nil, &remote.Error{Node: node, Kind: remote.Ended, Text: "nothing was changed"}
	case answer.problem != nil:
		return nil, answer.problem
	case err == nil:
		return answer.outcome.judge(run)
	case gone && ctx.Err() != nil:
		return nil, left(ctx)
	case gone:
		o, err := collect(ctx, shell, node, run, step)
		if ctx.Err() != nil {
			err = left(ctx)
		}
		return o, err
	}
	return nil, err
}

// left is the error if the administrator does not wait for the end of a switch.
func left(ctx context.Context) error {
	return problemf("it goes on there: nnf-deploy status tells what became of it", "left in the middle of the switch: %v", context.Cause(ctx))
}

// collect asks the node for the outcome of a switch during which the connection broke.
func collect(ctx context.Context, shell remote.Shell, node, run string, step Steps) (*Outcome, error) {
	step("reconnect")
	var answer *reader
	var err error
	for try := range 5 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(time.Duration(try) * 2 * time.Second):
			}
		}
		answer, err = ask(ctx, shell, node, run)
		if e := (*remote.Error)(nil); err == nil || answer.problem != nil || !errors.As(err, &e) || e.Kind != remote.Unreachable && e.Kind != remote.Lost {
			break
		}
	}
	switch {
	case answer.problem != nil:
		return nil, answer.problem
	case err != nil:
		return nil, problemf("run it again: it goes on where it stopped", "the connection broke during the switch and does not come back (%v)", err)
	case answer.outcome.Run != run:
		return nil, problemf("run it again", "the connection broke before the switch; nothing was changed")
	}
	return answer.outcome.judge(run)
}

// ask is one attempt to get the outcome of a run.
func ask(ctx context.Context, shell remote.Shell, node, run string) (*reader, error) {
	through, over := make(chan struct{}), make(chan struct{})
	answer := &reader{signals: map[string]func(){"heard": sync.OnceFunc(func() { close(through) })}}
	in, feed := io.Pipe()
	go func() {
		defer feed.Close()
		if _, err := fmt.Fprintf(feed, "wait %s %s\n", seconds(after), run); err != nil {
			return // the script has ended, and reports why
		}
		select {
		case <-through:
			_, _ = io.WriteString(feed, "heard "+run+"\n")
		case <-over:
		}
	}()
	err := shell.Run(ctx, node, collectScript, in, &bounded{answer, mostBytes})
	close(over)
	in.Close()
	return answer, err
}

// judge returns an error for an outcome that is not ok, or not that of this run.
func (o *Outcome) judge(run string) (*Outcome, error) {
	switch {
	case o.Run != run:
		return nil, problemf("run it again", "it does not say what became of the switch")
	case o.State == "ok":
		return o, nil
	}
	hint := o.Hint
	if hint == "" {
		hint = "run it again when the cause is gone"
	}
	state := map[string]string{"old": "the node is as before", "unready": "the new version stays", "mixed": "old and new are mixed", "partly": "what was removed before stays removed"}[o.State]
	return o, problemf(hint, "%s; %s", o.Cause, state)
}

func newRun() (string, error) {
	b := make([]byte, 8)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}

// Outcome is the result of a switch as the node reports it.
type Outcome struct {
	Run     string
	State   string // ok, old (it failed and was undone), unready (new, but a daemon does not get ready), mixed, partly (removed)
	Cause   string
	Hint    string
	Notes   []string // what else there is to know
	Said    []string // what daemons report of themselves
	Journal []string // the last lines of a daemon that does not get ready
}

// reader parses the answer of the apply and the collect script as it arrives.
type reader struct {
	outcome Outcome
	problem *Problem
	rest    string            // of a line that is not complete
	signals map[string]func() // called for lines of one word
}

// Write implements io.Writer.
func (r *reader) Write(p []byte) (int, error) {
	r.rest += string(p)
	for {
		line, rest, whole := strings.Cut(r.rest, "\n")
		if !whole {
			break
		}
		r.rest = rest
		r.take(strings.Split(line, "\t"))
	}
	return len(p), nil
}

func (r *reader) take(f []string) {
	switch o := &r.outcome; {
	case len(f) == 1 && r.signals[f[0]] != nil:
		r.signals[f[0]]()
	case f[0] == "error" && len(f) >= 3:
		r.problem = &Problem{Text: f[1], Hint: f[2]}
	case f[0] == "result" && len(f) >= 5:
		o.Run, o.State, o.Cause, o.Hint = f[1], f[2], f[3], f[4]
	case f[0] == "note" && len(f) >= 2:
		o.Notes = append(o.Notes, f[1])
	case f[0] == "said" && len(f) >= 2:
		o.Said = append(o.Said, f[1])
	case f[0] == "journal" && len(f) >= 2:
		o.Journal = append(o.Journal, strings.Join(f[1:], " "))
	}
}
