package unixsocket

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func acceptAll(l *Listener) (came chan *Conn, ended chan error) {
	came, ended = make(chan *Conn, 100), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			came <- c.(*Conn)
		}
	}()
	return came, ended
}

// Clients that connect while accepting is stopped wait, and are served later.
func TestStopAndStartAccepting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAcceptor()
		l := f.listener(t, Options{})
		came, ended := acceptAll(l)
		f.connect(t, 7)
		(<-came).Close()
		for range 3 {
			l.stopAccepting()
			l.stopAccepting()
			f.connect(t, 7)
			synctest.Wait()
			if len(came) != 0 || l.Open() != 0 {
				t.Error("accepted")
			}
			l.startAccepting()
			l.startAccepting()
			(<-came).Close()
		}
		l.stopAccepting()
		l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept of a stopped listener that is closed: %v", err)
		}
		l.stopAccepting() // has no effect
		l.startAccepting()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// A client that has connected and sent nothing yet prevents the exit, because it may be
// about to send a call.
func TestQuiesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAcceptor()
		idle := NewIdle(0, func() {})
		l := f.listener(t, Options{Idle: idle})
		came, _ := acceptAll(l)
		client := f.connect(t, 7)
		c := <-came
		if l.Quiesce() {
			t.Fatal("quiesced although a client has just connected")
		}
		f.connect(t, 8)
		(<-came).Close() // connections are accepted again
		go client.Write([]byte("x"))
		c.Read(make([]byte, 1))
		idle.Enter()
		if l.Quiesce() {
			t.Fatal("quiesced during a call")
		}
		idle.Leave()
		if !l.Quiesce() {
			t.Fatal("not quiesced because of a silent client")
		}
		f.connect(t, 8)
		synctest.Wait()
		if len(came) != 0 {
			t.Error("a client was accepted")
		}
	})
}

// Drain waits for clients that have just connected, not for later ones, and for a limited
// time.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAcceptor()
		l := f.listener(t, Options{})
		came, _ := acceptAll(l)
		drained := make(chan time.Duration, 1)
		drain := func() {
			start := time.Now()
			l.Drain(time.Second)
			drained <- time.Since(start)
		}
		client := f.connect(t, 7)
		c := <-came
		go drain()
		synctest.Wait()
		f.connect(t, 8)
		synctest.Wait()
		if len(drained) != 0 || len(came) != 0 {
			t.Error("Drain does not wait for the first client, or the second was accepted")
		}
		go client.Write([]byte("x"))
		c.Read(make([]byte, 1))
		if d := <-drained; d != 0 {
			t.Errorf("Drain waits %v after the first bytes", d)
		}

		l.startAccepting()
		silent := <-came
		go drain()
		if d := <-drained; d != time.Second {
			t.Errorf("Drain waits %v for a silent client", d)
		}
		go drain()
		synctest.Wait()
		silent.Close()
		if d := <-drained; d != 0 {
			t.Errorf("Drain waits %v for a disconnected client", d)
		}
	})
}

// The same with real sockets: a waiting accept(2) is woken, no client is lost, and the
// queue is served after the pause.
func TestStopAcceptingRealSocket(t *testing.T) {
	l := listen(t, Options{})
	came, _ := acceptAll(l)
	for range 50 {
		l.stopAccepting()
		c := dial(t, l)
		c.Write([]byte("hello"))
		if l.Open() != 0 || len(came) != 0 {
			t.Fatal("accepted")
		}
		l.startAccepting()
		served := <-came
		buf := make([]byte, 10)
		if n, err := served.Read(buf); string(buf[:n]) != "hello" {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
		served.Close()
	}
}

// However connects, calls and exits interleave: a client is either accepted before Quiesce
// returns true, and then the process is busy, or it waits for the next process.
func TestExitLosesNoClient(t *testing.T) {
	path := filepath.Join(directory(t), "s")
	unit, _ := socketUnit(t, "unix", path)
	served := make(chan error, 400)
	for range 4 {
		go func() {
			for range 100 {
				served <- func() error {
					c, err := net.Dial("unix", path)
					if err != nil {
						return err
					}
					defer c.Close()
					if _, err := c.Write([]byte("x")); err != nil {
						return err
					}
					_, err = c.Read(make([]byte, 1))
					return err
				}()
			}
		}()
	}
	for generations, left := 0, 400; left > 0; generations++ {
		nl, err := net.FileListener(unit)
		if err != nil {
			t.Fatal(err)
		}
		reported := make(chan struct{}, 1)
		idle := NewIdle(time.Microsecond, func() { reported <- struct{}{} })
		l := newListener(nl.(*net.UnixListener), nil, Options{Idle: idle, Log: quiet})
		came, _ := acceptAll(l)
		for leaving := false; !leaving; {
			select {
			case c := <-came:
				idle.Enter()
				c.Read(make([]byte, 1))
				c.Write([]byte("y"))
				c.Close()
				idle.Leave()
			case err := <-served:
				if err != nil {
					t.Fatalf("generation %d: %v", generations, err)
				}
				left--
			case <-reported:
				leaving = l.Quiesce()
			}
			if left == 0 {
				leaving = true
			}
		}
		idle.Stop()
		l.Close() // systemd keeps its descriptor
		if left == 0 && generations == 0 {
			t.Error("no generation has exited: nothing was tested")
		}
	}
}

// An idle accept loop responds, and clients are not affected.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAcceptor()
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
		if l.Open() != 0 || len(came) != 0 {
			t.Errorf("%d open, %d accepted", l.Open(), len(came))
		}
		l.stopAccepting()
		if err := l.Probe(t.Context()); err != nil {
			t.Errorf("while accepting is stopped: %v", err)
		}
		f.connect(t, 7)
		synctest.Wait()
		if len(came) != 0 {
			t.Error("the probe has accepted a client")
		}
		l.startAccepting()
		(<-came).Close()
		l.Close()
		<-ended
		if err := l.Probe(t.Context()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("of a closed listener: %v", err)
		}
	})
}

// A hanging loop does not respond. When it continues, it ignores the old probe and accepts
// clients.
func TestProbeOfHangingLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAcceptor()
		l := f.listener(t, Options{})
		late := errors.New("late")
		for range 2 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, late)
			start := time.Now()
			if err := l.Probe(ctx); !errors.Is(err, late) || time.Since(start) != time.Minute {
				t.Errorf("%v after %s", err, time.Since(start))
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

// startAccepting must not make a loop that is about to accept miss the probe.
func TestProbeAndStartAccepting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeAcceptor().listener(t, Options{})
		l.stopAccepting()
		answered := make(chan error, 1)
		go func() { answered <- l.Probe(t.Context()) }()
		synctest.Wait()
		l.startAccepting()
		if _, err := l.acceptOne(); !errors.Is(err, os.ErrDeadlineExceeded) { // after awaitAccepting
			t.Errorf("%v", err)
		}
		if err := l.awaitAccepting(); err != nil {
			t.Error(err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
	})
}

// The same with a real socket and concurrent clients.
func TestProbeRealSocket(t *testing.T) {
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
			l.stopAccepting()
			l.startAccepting()
		}
	})
	for range 100 {
		dial(t, l).Close()
		(<-came).Close()
	}
	both.Wait()
	dial(t, l) // no deadline remains
	(<-came).Close()
}
