package dmctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/screen"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// follow waits for the end of copies and shows how they go on. The first Ctrl-C
// detaches after a moment in which a second one cancels; other signals detach at
// once. The copies need nobody who follows them.
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
		f.screen = screen.NewFollower(v.Stderr, Name, v.Getenv("TERM"))
		show = f.screen.Show
	}
	go func() {
		defer close(f.done)
		f.all, f.err = v.client.Follow(ctx, ids, show)
	}()
	err := f.attend(ctx)
	cancel()
	<-f.done
	if f.screen != nil {
		f.screen.Close()
	}
	return f.all, f.judge(err)
}

type follow struct {
	v      *call
	ids    []string
	screen screen.Follower // nil with --quiet
	done   chan struct{}
	all    []client.Movement // when done
	err    error
}

// attend returns when the copies have ended, or with the reason to go.
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

// judge says how to go on when the copies go on without us.
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
		return &client.Error{Kind: client.TimedOut, Text: fmt.Sprintf("not ended after %v", f.v.timeout), Hint: "the copy continues; to follow it again: " + again}
	case errors.As(err, &e) && e.Kind == client.Unreachable:
		return hint.Add(err, "to follow the copy again: %s", again)
	}
	return err
}

func (f *follow) say(format string, args ...any) {
	if f.screen != nil {
		f.screen.Say(fmt.Sprintf(format, args...))
		return
	}
	f.v.Say(format, args...)
}

// detached is what a signal does to who follows: the copies go on.
const detached = "detached"

// grace is the time for the second Ctrl-C.
const grace = 3 * time.Second

// quoted makes ids safe to be pasted into a shell.
func quoted(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, shellWord(text.Line(id)))
	}
	return out
}

func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+,") == "" && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
