package unixsocket

import (
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestFirstBytesInTime(t *testing.T) {
	const limit = 10 * time.Second
	type event struct {
		after time.Duration
		send  string
	}
	for _, tt := range []struct {
		name     string
		bytes    int
		deadline time.Duration // that the server sets at once; 0: none
		events   []event
		ends     time.Duration // when a read fails; 0: it does not within an hour
		slow     uint64
	}{
		{"silent", 0, 0, nil, limit, 1},
		{"silent with the server's earlier deadline", 0, time.Second, nil, time.Second, 0},
		{"silent with the server's later deadline", 0, time.Minute, nil, limit, 1},
		{"one byte of one", 0, 0, []event{{0, "x"}}, 0, 0},
		{"in the last moment", 4, 0, []event{{limit - 1, "four"}}, 0, 0},
		{"a byte a second", 24, 0, []event{{1e9, "x"}, {1e9, "x"}, {1e9, "x"}, {6e9, "x"}}, limit, 1},
		{"enough, by parts", 4, 0, []event{{1e9, "x"}, {8e9, "xxx"}}, 0, 0},
		{"the server's deadline counts afterwards", 1, time.Minute, []event{{1e9, "x"}}, time.Minute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSocket()
				var told []error
				l := f.listener(t, Options{Handshake: limit, HandshakeBytes: tt.bytes,
					Turned: func(_ Peer, err error) { told = append(told, err) }})
				client := f.connect(t, 7)
				c := accept(t, l)
				begin := time.Now()
				if tt.deadline != 0 {
					if err := c.SetDeadline(begin.Add(tt.deadline)); err != nil {
						t.Fatal(err)
					}
				}
				go func() {
					for _, e := range tt.events {
						time.Sleep(e.after)
						client.Write([]byte(e.send))
					}
					select {
					case <-time.After(time.Hour):
					case <-t.Context().Done():
					}
					client.Close()
				}()
				_, err := io.Copy(io.Discard, c)
				c.Read(make([]byte, 1)) // told only once
				took := time.Since(begin)
				switch {
				case tt.ends == 0 && (err != nil || took < time.Hour):
					t.Errorf("ended after %v: %v", took, err)
				case tt.ends != 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || took != tt.ends):
					t.Errorf("ended after %v, want %v: %v", took, tt.ends, err)
				}
				if l.Stats().Slow != tt.slow || uint64(len(told)) != tt.slow || tt.slow > 0 && told[0] != ErrSlow {
					t.Errorf("%d slow, told %v", l.Stats().Slow, told)
				}
				client.Close()
			})
		})
	}
}

func TestNoHandshakeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSocket()
		l := f.listener(t, Options{Handshake: -1})
		client := f.connect(t, 7)
		c := accept(t, l)
		go func() {
			time.Sleep(24 * time.Hour)
			client.Write([]byte("x"))
		}()
		if n, err := c.Read(make([]byte, 9)); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// A connection of courtesy ends in time, whatever the server asks for and the
// client sends.
func TestCourtesyEnds(t *testing.T) {
	for _, handshake := range []time.Duration{5 * time.Second, -1} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeSocket()
			l := f.listener(t, Options{Handshake: handshake, Courtesy: 1, Limiter: NewLimiter(LimiterOptions{User: Share{Slots: 1}})})
			f.connect(t, 7)
			if c := accept(t, l); c.Refused() != nil {
				t.Fatal(c.Refused())
			}
			client := f.connect(t, 7)
			c := accept(t, l)
			var limit *LimitError
			if !errors.As(c.Refused(), &limit) || limit.UID != 7 || limit.Limit != 1 {
				t.Fatalf("got %v", c.Refused())
			}
			begin, want := time.Now(), handshake
			if want < 0 {
				want = defaultHandshake
			}
			go func() {
				for {
					if _, err := client.Write([]byte("x")); err != nil {
						return
					}
					select {
					case <-time.After(time.Second):
					case <-t.Context().Done():
						return
					}
				}
			}()
			for _, set := range []func(time.Time) error{c.SetDeadline, c.SetReadDeadline, c.SetWriteDeadline} {
				set(begin.Add(time.Hour))
				set(time.Time{})
			}
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != want {
				t.Errorf("reads until %v, %v", time.Since(begin), err)
			}
			if _, err := c.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %v", err)
			}
			c.Close()
			if l.Stats().Slow != 0 {
				t.Error("taken for slow")
			}
		})
	}
}

func TestCloseTwiceFreesOnePlace(t *testing.T) {
	limiter := NewLimiter(LimiterOptions{})
	idle := NewIdle(0, func() {})
	l := listen(t, Options{Limiter: limiter, Idle: idle})
	dial(t, l)
	dial(t, l)
	a, _ := accept(t, l), accept(t, l)
	for range 3 {
		a.Close()
	}
	if _, all := limiter.InUse(0); all != 1 || l.Stats().Open != 1 || !idle.Busy() {
		t.Errorf("%d slots, %+v, busy %v", all, l.Stats(), idle.Busy())
	}
}

func TestSyscallConn(t *testing.T) {
	l := listen(t, Options{})
	dial(t, l)
	raw, err := accept(t, l).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var p Peer
	raw.Control(func(fd uintptr) { p, err = peerOfFD(int(fd)) })
	if err != nil || p.PID != int32(os.Getpid()) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestEarlier(t *testing.T) {
	var never time.Time
	a, b := time.Unix(1, 0), time.Unix(2, 0)
	for _, tt := range [][3]time.Time{{a, b, a}, {b, a, a}, {never, b, b}, {a, never, a}, {never, never, never}} {
		if got := earlier(tt[0], tt[1]); !got.Equal(tt[2]) {
			t.Errorf("earlier(%v, %v) = %v", tt[0], tt[1], got)
		}
	}
}
