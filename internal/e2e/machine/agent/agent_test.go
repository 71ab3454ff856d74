package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine/wire"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// host is the test's end of the connection to an agent.
type host struct {
	t    *testing.T
	conn net.Conn
	out  *wire.Writer
	got  chan wire.Message
}

func connect(t *testing.T) *host {
	t.Helper()
	mine, its := net.Pipe()
	t.Cleanup(func() { mine.Close(); its.Close() })
	h := &host{t: t, conn: mine, got: make(chan wire.Message, 100)}
	go func() { _ = serve(its) }()
	go func() { _ = wire.Read(mine, func(m wire.Message) { h.got <- m }) }()
	if m := h.next(); m.Hello == "" {
		t.Fatalf("the first message is %+v", m)
	}
	var err error
	if h.out, err = wire.NewWriter(mine); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) next() wire.Message {
	h.t.Helper()
	select {
	case m := <-h.got:
		return m
	case <-time.After(20 * time.Second):
		h.t.Fatal("no message within 20 s")
		return wire.Message{}
	}
}

func (h *host) run(call int, script string, in []byte) (out string, code int) {
	h.t.Helper()
	if err := h.out.SendInput(call, in); err != nil {
		h.t.Fatal(err)
	}
	if err := h.out.Send(wire.Message{Call: call, Script: script}); err != nil {
		h.t.Fatal(err)
	}
	for {
		m := h.next()
		if m.Call != call {
			h.t.Fatalf("message %+v for another call", m)
		}
		if m.Done {
			return out, m.Code
		}
		out += string(m.Out)
	}
}

func TestScripts(t *testing.T) {
	h := connect(t)
	for i, test := range []struct {
		script, in, out string
		code            int
	}{
		{"echo a; echo b >&2; exit 3", "", "a\nb\n", 3},
		{"cat", "some input", "some input", 0},
		{"kill -9 $$", "", "", 137},
		{"true", "ignored input", "", 0},
		{"no-such-command-anywhere 2>/dev/null", "", "", 127},
		{"head -c 200000 /dev/zero | tr '\\0' x | wc -c", "", "200000\n", 0},
		{"[[ a == a ]] && pwd", "", "/\n", 0},
	} {
		if out, code := h.run(i+1, test.script, []byte(test.in)); out != test.out || code != test.code {
			t.Errorf("%s: %q and %d, want %q and %d", test.script, out, code, test.out, test.code)
		}
	}
	big := bytes.Repeat([]byte("0123456789"), 30000)
	if out, _ := h.run(50, "cat", big); out != string(big) {
		t.Errorf("%d bytes were returned, want %d", len(out), len(big))
	}
}

// A process that a script leaves running does not delay the end of the script.
func TestBackgroundProcess(t *testing.T) {
	h := connect(t)
	started := time.Now()
	out, code := h.run(1, "sleep 60 & echo $!", nil)
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil || code != 0 {
		t.Fatalf("%q and %d", out, code)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if d := time.Since(started); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestKill(t *testing.T) {
	h := connect(t)
	_ = h.out.Send(wire.Message{Call: 1, Script: "echo up; sleep 1000; echo never"})
	if m := h.next(); string(m.Out) != "up\n" {
		t.Fatalf("%+v", m)
	}
	_ = h.out.Send(wire.Message{Call: 1, Kill: true})
	if m := h.next(); !m.Done || m.Code != 137 {
		t.Errorf("%+v", m)
	}
}

func TestForward(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
	mine, its := net.Pipe()
	go pass(its, server.Addr().String())
	go func() { _, _ = mine.Write([]byte("there and back")) }()
	got := make([]byte, 14)
	if _, err := io.ReadFull(mine, got); err != nil || string(got) != "there and back" {
		t.Errorf("%q %v", got, err)
	}
	mine.Close()
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // from an earlier agent
		t.Fatal(err)
	}
	go func() { _ = run([]string{"serve", path}) }()
	wait.Until(t, "the agent's socket", func() bool {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"serve"}, {"forward", "a"}, {"dance", "x"}} {
		if run(args) == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
