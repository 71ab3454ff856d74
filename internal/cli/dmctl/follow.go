package dmctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// follow waits for the end of copies and shows their progress. The first Ctrl-C
// detaches, unless a second one within the grace time cancels the copies; other signals
// detach immediately. Copies continue when no process follows them.
func (v *call) follow(ctx context.Context, ids []string) ([]client.Movement, error) {
	if v.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.timeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &follow{v: v, ids: ids, done: make(chan struct{})}
	var show func([]client.Movement)
	if !v.quiet {
		f.progress = newProgress(v.Stderr, v.Getenv("TERM"))
		show = f.progress.Show
	}
	go func() {
		defer close(f.done)
		f.all, f.err = v.client.Follow(ctx, ids, show)
	}()
	err := f.attend(ctx)
	cancel()
	<-f.done
	if f.progress != nil {
		f.progress.Close()
	}
	return f.all, f.judge(err)
}

type follow struct {
	v        *call
	ids      []string
	progress progress // nil with --quiet
	done     chan struct{}
	all      []client.Movement // valid when done is closed
	err      error
}

// attend returns when the copies have ended, or with the reason to stop following.
func (f *follow) attend(ctx context.Context) error {
	var detach <-chan time.Time
	first, cancelled := os.Signal(nil), false
	for {
		select {
		case <-f.done:
			return nil
		case <-detach:
			return cli.StoppedBy(detached, first)
		case s := <-f.v.Signals:
			switch {
			case s != os.Interrupt || cancelled:
				return cli.StoppedBy(detached, s)
			case first == nil:
				first = s
				f.say("detaching; press Ctrl-C again within %v to cancel", grace)
				t := time.NewTimer(grace)
				defer t.Stop()
				detach = t.C
			default:
				cancelled, detach = true, nil
				f.say("cancelling")
				if err := f.v.client.Cancel(ctx, f.ids); err != nil {
					return err
				}
			}
		}
	}
}

// judge returns the error of following, with a hint if the copies continue.
func (f *follow) judge(err error) error {
	if err == nil {
		err = f.err
	}
	again := Name + " wait " + strings.Join(quoted(f.ids), " ")
	e := (*client.Error)(nil)
	switch {
	case err == nil:
	case errors.As(err, new(*cli.Stopped)):
		return hint.Add(err, "the copy continues; to follow it again: %s", again)
	case errors.As(err, &e) && e.Kind == client.TimedOut && f.v.timeout > 0:
		late := &client.Error{Kind: client.TimedOut, Text: fmt.Sprintf("timed out after %v", f.v.timeout)}
		return hint.Add(late, "the copy continues; to follow it again: %s", again)
	case errors.As(err, &e) && e.Kind == client.Unreachable:
		return hint.Add(err, "to follow the copy again: %s", again)
	}
	return err
}

func (f *follow) say(format string, args ...any) {
	if f.progress != nil {
		f.progress.Say(fmt.Sprintf(format, args...))
		return
	}
	f.v.Say(format, args...)
}

// detached is the effect of a signal on a process that follows copies: they continue.
const detached = "detached"

// grace is the time limit for the second Ctrl-C, which cancels.
const grace = 3 * time.Second

// quoted quotes ids for a shell.
func quoted(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, text.ShellWord(text.Line(id)))
	}
	return out
}

type listDocument struct {
	Copies []client.Movement `json:"copies"`
}

func (v *call) showJSON(all []client.Movement) error {
	if all == nil {
		all = []client.Movement{}
	}
	return text.JSON(v.Stdout, listDocument{all})
}

// showAll prints copies and sets the exit code.
func (v *call) showAll(all []client.Movement) error {
	if code := exitOfAll(all); v.Code == ExitOK {
		v.Code = code
	}
	if v.output == formatJSON {
		return v.showJSON(all)
	}
	for _, m := range all {
		bad := exitOfResult[m.Result] != ExitOK
		if v.quiet && !bad {
			continue
		}
		line := summary(m)
		if v.quiet {
			v.Explain(errors.New(line))
			continue
		}
		if m.Message != "" && m.Result == client.Success {
			line += "\n" + text.Text(m.Message) // the output, with --store-stdout
		}
		if _, err := fmt.Fprintln(v.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}
