package unixsocket

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An idle loop answers, and clients are none the wiser.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSocket()
		idle := NewIdle(time.Minute, func() {})
		l := f.listener(t, Options{Idle: idle})
		defer idle.Stop()
		came, ended := acceptAll(l)
		for range 3 {
			if err := l.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.connect(t, 7)
			(<-came).Close()
		}
		if s := l.Stats(); s.Accepted != 3 || s.Open != 0 {
			t.Errorf("%+v", s)
		}
		l.StopAccepting()
		if err := l.Probe(t.Context()); err != nil {
			t.Errorf("while accepting is stopped: %v", err)
		}
		f.connect(t, 7)
		synctest.Wait()
		if len(came) != 0 {
			t.Error("the question let somebody in")
		}
		l.StartAccepting()
		(<-came).Close()
		l.Close()
		<-ended
		if err := l.Probe(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("of a closed listener: %v", err)
		}
	})
}

// A loop that hangs does not answer; when it goes on, the question is forgotten
// and clients come in.
func TestProbeOfALoopThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSocket()
		l := f.listener(t, Options{})
		late := errors.New("late")
		for range 2 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, late)
			begin := time.Now()
			if err := l.Probe(ctx); !errors.Is(err, late) || time.Since(begin) != time.Minute {
				t.Errorf("%v after %s", err, time.Since(begin))
			}
			cancel()
		}
		came, _ := acceptAll(l)
		f.connect(t, 7)
		(<-came).Close()
		if err := l.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Who goes on accepting must not make a loop that is about to accept sleep over
// the question.
func TestProbeAndStartAccepting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeSocket().listener(t, Options{})
		l.StopAccepting()
		answered := make(chan error, 1)
		go func() { answered <- l.Probe(t.Context()) }()
		synctest.Wait()
		l.StartAccepting()
		if _, err := l.acceptOne(); !errors.Is(err, os.ErrDeadlineExceeded) { // past the gate
			t.Errorf("%v", err)
		}
		if err := l.gate(); err != nil {
			t.Error(err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}

// With the kernel's socket, and whatever else wakes it.
func TestProbeForReal(t *testing.T) {
	l := listen(t, Options{})
	came, _ := acceptAll(l)
	var both sync.WaitGroup
	both.Go(func() {
		for range 200 {
			if err := l.Probe(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	both.Go(func() {
		for range 200 {
			l.StopAccepting()
			l.StartAccepting()
		}
	})
	for range 100 {
		dial(t, l).Close()
		(<-came).Close()
	}
	both.Wait()
	dial(t, l) // no deadline is left behind
	(<-came).Close()
}
