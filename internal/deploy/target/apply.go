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

// The scripts that run on nodes.
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

// bare returns a script without comment lines and empty lines.
func bare(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if t := strings.TrimSpace(line); t != "" && !strings.HasPrefix(t, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Steps is called with each step of a node.
type Steps func(step string)

// switchLimit is how long Apply waits for a switch after the connection broke.
const switchLimit = 10 * time.Minute

// Apply applies a plan. If stop is done before the switch has started on the node, Apply
// returns and the node is unchanged. From then on, Apply waits for the switch until ctx is
// done, even if the connection breaks. If the state of the Outcome is not ok, it also
// returns an error.
func Apply(ctx, stop context.Context, shell remote.Shell, node string, p *Plan, step Steps) (*Outcome, error) {
	run, err := newRun()
	if err != nil {
		return nil, err
	}
	session, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	staged, finished := make(chan struct{}), make(chan struct{})
	answer := &outcomeReader{signals: map[string]func(){
		"staged":  sync.OnceFunc(func() { close(staged) }),
		"confirm": sync.OnceFunc(func() { close(finished) }),
	}}
	goSent := false // from now on, only the node can report its state
	in := newInput(func(w *sink) error {
		a := newArchive(p, run)
		if _, err := fmt.Fprintf(w, "archive %d\n", a.size); err != nil {
			return nil // the script has exited and reports the reason
		}
		if err := a.write(w); err != nil && !w.broken {
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
		goSent = true
		_, _ = io.WriteString(w, "go "+run+"\n") // the node reports whether this has arrived
		select {
		case <-finished:
			_, _ = io.WriteString(w, "confirmed "+run+"\n")
		case <-session.Done():
		}
		return nil
	})
	halt := context.AfterFunc(stop, func() {
		select {
		case <-staged: // the function above decides whether to send "go"
		default:
			cancel(context.Cause(stop))
		}
	})
	defer halt()
	step("upload")
	err = shell.Run(session, node, applyScript, in, &bounded{answer, maxAnswer})
	cancel(nil)
	ferr := in.finish()
	switch {
	case ferr != nil:
		return nil, ferr
	case stop.Err() != nil && !goSent:
		return nil, &remote.Error{Node: node, Kind: remote.Interrupted, Text: "nothing was changed"}
	case answer.problem != nil:
		return nil, answer.problem
	case err == nil:
		return answer.outcome.check(run)
	case goSent && ctx.Err() != nil:
		return nil, stoppedWaiting(ctx)
	case goSent:
		o, err := collect(ctx, shell, node, run, step)
		if ctx.Err() != nil {
			err = stoppedWaiting(ctx)
		}
		return o, err
	}
	return nil, err
}

// stoppedWaiting returns the error for a ctx that is done before the end of the switch.
func stoppedWaiting(ctx context.Context) error {
	return problemf("the switch continues on the node: see nnf-deploy status for its result", "stopped waiting during the switch: %v", context.Cause(ctx))
}

// collect connects again after the connection broke during the switch, and returns the
// outcome.
func collect(ctx context.Context, shell remote.Shell, node, run string, step Steps) (*Outcome, error) {
	step("reconnect")
	var answer *outcomeReader
	var err error
	for try := range 5 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(time.Duration(try) * 2 * time.Second):
			}
		}
		answer, err = collectOnce(ctx, shell, node, run)
		if e := (*remote.Error)(nil); err == nil || answer.problem != nil || !errors.As(err, &e) || e.Kind != remote.Unreachable && e.Kind != remote.Lost {
			break
		}
	}
	switch {
	case answer.problem != nil:
		return nil, answer.problem
	case err != nil:
		return nil, problemf("run the command again: it continues where it stopped", "the connection broke during the switch, and reconnecting failed (%v)", err)
	case answer.outcome.Run != run:
		return nil, problemf("run the command again", "the connection broke before the switch; nothing was changed")
	}
	return answer.outcome.check(run)
}

// collectOnce is one attempt to get the outcome of a run.
func collectOnce(ctx context.Context, shell remote.Shell, node, run string) (*outcomeReader, error) {
	finished, exited := make(chan struct{}), make(chan struct{})
	answer := &outcomeReader{signals: map[string]func(){"confirm": sync.OnceFunc(func() { close(finished) })}}
	in, feed := io.Pipe()
	go func() {
		defer feed.Close()
		if _, err := fmt.Fprintf(feed, "wait %s %s\n", seconds(switchLimit), run); err != nil {
			return // the script has exited and reports the reason
		}
		select {
		case <-finished:
			_, _ = io.WriteString(feed, "confirmed "+run+"\n")
		case <-exited:
		}
	}()
	err := shell.Run(ctx, node, collectScript, in, &bounded{answer, maxAnswer})
	close(exited)
	in.Close()
	return answer, err
}

// check returns the outcome, and an error if it is not ok or belongs to another run.
func (o *Outcome) check(run string) (*Outcome, error) {
	switch {
	case o.Run != run:
		return nil, problemf("run the command again", "the node did not report the result of the switch")
	case o.State == "ok":
		return o, nil
	}
	hint := o.Hint
	if hint == "" {
		hint = "fix the cause, then run the command again"
	}
	state := map[string]string{"old": "the previous state was restored", "unready": "the new version stays installed", "mixed": "old and new files are mixed", "partly": "the removal is incomplete"}[o.State]
	return o, problemf(hint, "%s; %s", o.Cause, state)
}

func newRun() (string, error) {
	b := make([]byte, 8)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}

// Outcome is the result of a switch, as reported by the node.
type Outcome struct {
	Run     string
	State   string // ok, old (failed and undone), unready (new, but a daemon is not ready), mixed (undoing failed), partly (removed)
	Cause   string
	Hint    string
	Notes   []string // other remarks
	Status  []string // status texts that the daemons report
	Journal []string // the last journal lines of a daemon that did not become ready
}

// outcomeReader parses the answer of the apply and collect scripts as it arrives.
type outcomeReader struct {
	outcome Outcome
	problem *Problem
	rest    string            // the incomplete last line
	signals map[string]func() // called for lines that consist of this word
}

// Write implements io.Writer.
func (r *outcomeReader) Write(p []byte) (int, error) {
	r.rest += string(p)
	for {
		line, rest, whole := strings.Cut(r.rest, "\n")
		if !whole {
			break
		}
		r.rest = rest
		r.parse(strings.Split(line, "\t"))
	}
	return len(p), nil
}

func (r *outcomeReader) parse(f []string) {
	switch o := &r.outcome; {
	case len(f) == 1 && r.signals[f[0]] != nil:
		r.signals[f[0]]()
	case f[0] == "error" && len(f) >= 3:
		r.problem = &Problem{Text: f[1], Hint: f[2]}
	case f[0] == "result" && len(f) >= 5:
		o.Run, o.State, o.Cause, o.Hint = f[1], f[2], f[3], f[4]
	case f[0] == "note" && len(f) >= 2:
		o.Notes = append(o.Notes, f[1])
	case f[0] == "status" && len(f) >= 2:
		o.Status = append(o.Status, f[1])
	case f[0] == "journal" && len(f) >= 2:
		o.Journal = append(o.Journal, strings.Join(f[1:], " "))
	}
}
