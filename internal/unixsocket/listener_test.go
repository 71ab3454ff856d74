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
		f := newFakeSocket()
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
		l.stopAccepting() // harmless
		l.startAccepting()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

// A client that has connected and sent nothing yet keeps the process from exiting; it
// may be about to call.
func TestQuiesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSocket()
		idle := NewIdle(0, func() {})
		l := f.listener(t, Options{Idle: idle})
		came, _ := acceptAll(l)
		client := f.connect(t, 7)
		c := <-came
		if l.Quiesce() {
			t.Fatal("left a client that has just come")
		}
		f.connect(t, 8)
		(<-came).Close() // connections are accepted again
		go client.Write([]byte("x"))
		c.Read(make([]byte, 1))
		idle.Enter()
		if l.Quiesce() {
			t.Fatal("left a call")
		}
		idle.Leave()
		if !l.Quiesce() {
			t.Fatal("stays for a client that has nothing to say")
		}
		f.connect(t, 8)
		synctest.Wait()
		if len(came) != 0 {
			t.Error("a client was accepted")
		}
	})
}

// A process that exits waits for clients that have just connected, not for later ones,
// and not for ever.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSocket()
		l := f.listener(t, Options{})
		came, _ := acceptAll(l)
		drained := make(chan time.Duration, 1)
		drain := func() {
			began := time.Now()
			l.Drain(time.Second)
			drained <- time.Since(began)
		}
		client := f.connect(t, 7)
		c := <-came
		go drain()
		synctest.Wait()
		f.connect(t, 8)
		synctest.Wait()
		if len(drained) != 0 || len(came) != 0 {
			t.Error("it does not wait for the first, or lets in the second")
		}
		go client.Write([]byte("x"))
		c.Read(make([]byte, 1))
		if d := <-drained; d != 0 {
			t.Errorf("the first has come, and it waits %v more", d)
		}

		l.startAccepting()
		silent := <-came
		go drain()
		if d := <-drained; d != time.Second {
			t.Errorf("it waits %v for a client that says nothing", d)
		}
		go drain()
		synctest.Wait()
		silent.Close()
		if d := <-drained; d != 0 {
			t.Errorf("it waits %v for a client that is gone", d)
		}
	})
}

// The same with the kernel's sockets: a waiting accept(2) is woken, nothing is
// lost, and the queue is served after the pause.
func TestStopAcceptingForReal(t *testing.T) {
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

// However connecting, leaving and calling interleave: a client is either in
// before Quiesce says yes, and then it is busy, or it waits for the next process.
func TestNoClientIsLostByExiting(t *testing.T) {
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
		told := make(chan struct{}, 1)
		idle := NewIdle(time.Microsecond, func() { told <- struct{}{} })
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
			case <-told:
				leaving = l.Quiesce()
			}
			if left == 0 {
				leaving = true
			}
		}
		idle.Stop()
		l.Close() // systemd's copy stays
		if left == 0 && generations == 0 {
			t.Error("no generation has left: nothing was tested")
		}
	}
}

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
			t.Error("the probe let a client in")
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

// A loop that hangs does not answer; when it continues, the probe is forgotten
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

// startAccepting must not make a loop that is about to accept miss
// the probe.
func TestProbeAndStartAccepting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeSocket().listener(t, Options{})
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
			l.stopAccepting()
			l.startAccepting()
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
