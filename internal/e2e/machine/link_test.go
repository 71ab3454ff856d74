package machine

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine/wire"
)

// pipe is a link whose other end is the test.
func pipe(t *testing.T) (*link, *wire.Writer, <-chan wire.Message) {
	t.Helper()
	host, guest := net.Pipe()
	t.Cleanup(func() { host.Close(); guest.Close() })
	got := make(chan wire.Message, 16)
	go func() {
		_ = wire.Read(guest, func(m wire.Message) { got <- m })
	}()
	l, err := newLink(host)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.NewWriter(guest)
	if err != nil {
		t.Fatal(err)
	}
	return l, w, got
}

type result struct {
	out  string
	code int
	err  error
}

func start(ctx context.Context, l *link, script, stdin string) <-chan result {
	c := make(chan result, 1)
	go func() {
		out, code, err := l.run(ctx, script, []byte(stdin))
		c <- result{out, code, err}
	}()
	return c
}

func TestOutputAndCode(t *testing.T) {
	l, w, got := pipe(t)
	r := start(t.Context(), l, "cat", "hello")
	if m := <-got; string(m.In) != "hello" {
		t.Fatalf("%+v, want the input first", m)
	}
	m := <-got
	if m.Script != "cat" {
		t.Fatalf("%+v", m)
	}
	for _, reply := range []wire.Message{{Call: 99, Out: []byte("of another")}, {Call: m.Call, Out: []byte("hel")}, {Call: m.Call, Out: []byte("lo")}, {Call: m.Call, Done: true, Code: 3}} {
		_ = w.Send(reply)
	}
	if r := <-r; r.out != "hello" || r.code != 3 || r.err != nil {
		t.Errorf("%+v", r)
	}
}

func TestScriptEndsWithItsContext(t *testing.T) {
	l, w, got := pipe(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := start(ctx, l, "sleep 100", "")
	m := <-got
	_ = w.Send(wire.Message{Call: m.Call, Out: []byte("so far")})
	cancel()
	if r := <-r; !errors.Is(r.err, context.Canceled) {
		t.Errorf("%+v", r)
	}
	if m := <-got; !m.Kill {
		t.Errorf("%+v, want the script to be killed", m)
	}
}

// A boot ends what ran before it; the link goes on.
func TestReboot(t *testing.T) {
	l, w, got := pipe(t)
	_ = w.Send(wire.Message{Hello: "one"})
	if err := l.awaitBoot(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r := start(t.Context(), l, "reboot", "")
	<-got
	second := make(chan error, 1)
	go func() { second <- l.awaitBoot(t.Context(), 2) }()
	_ = w.Send(wire.Message{Hello: "two"})
	if r := <-r; !errors.Is(r.err, errRebooted) {
		t.Errorf("%+v", r)
	}
	if err := <-second; err != nil || l.bootCount() != 2 {
		t.Error(err, l.bootCount())
	}
	after := start(t.Context(), l, "true", "")
	m := <-got
	_ = w.Send(wire.Message{Call: m.Call, Done: true})
	if r := <-after; r.err != nil {
		t.Error(r.err)
	}
}

func TestBootThatNeverComes(t *testing.T) {
	l, _, _ := pipe(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.awaitBoot(ctx, 1); err == nil || !strings.Contains(err.Error(), "boot number 1") {
		t.Error(err)
	}
	l.conn.Close()
	if err := l.awaitBoot(t.Context(), 1); err == nil {
		t.Error("a boot over a connection that has ended")
	}
	if _, _, err := l.run(t.Context(), "true", nil); err == nil {
		t.Error("a script over a connection that has ended")
	}
}
