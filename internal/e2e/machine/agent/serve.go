package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine/wire"
)

// server runs the scripts of one stream, also concurrently.
type server struct {
	out *wire.Writer

	mu    sync.Mutex
	input map[int][]byte
	pids  map[int]int // process groups, by call
}

func serve(stream io.ReadWriter) error {
	out, err := wire.NewWriter(stream)
	if err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	if err := out.Send(wire.Message{Hello: strings.TrimSpace(string(boot))}); err != nil {
		return err
	}
	s := &server{out: out, input: map[int][]byte{}, pids: map[int]int{}}
	return wire.Read(stream, s.handle)
}

func (s *server) handle(m wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.In != nil:
		s.input[m.Call] = append(s.input[m.Call], m.In...)
	case m.Script != "":
		in := s.input[m.Call]
		delete(s.input, m.Call)
		go s.run(m.Call, m.Script, in)
	case m.Kill:
		if pid := s.pids[m.Call]; pid != 0 {
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
	}
}

// outputDelay is how long processes that a script leaves behind may continue to write to its
// output.
const outputDelay = time.Second

// run runs a script until it exits. Processes that it leaves behind keep running.
func (s *server) run(call int, script string, in []byte) {
	cmd := exec.Command("/bin/bash", "-c", script)
	cmd.Stdin, cmd.Dir = bytes.NewReader(in), "/"
	out := writer{s.out, call}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputDelay
	code := 127
	err := cmd.Start()
	if err == nil {
		s.note(call, cmd.Process.Pid)
		err = cmd.Wait()
		s.note(call, 0)
		code = exitCode(cmd.ProcessState)
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		_, _ = out.Write([]byte("agent: " + err.Error() + "\n"))
	}
	_ = s.out.Send(wire.Message{Call: call, Done: true, Code: code})
}

func (s *server) note(call, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid == 0 {
		delete(s.pids, call)
	} else {
		s.pids[call] = pid
	}
}

// exitCode returns the exit code as a shell reports it: 128 plus the number of the signal for
// a killed process.
func exitCode(state *os.ProcessState) int {
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// writer sends the written data as output of a call.
type writer struct {
	out  *wire.Writer
	call int
}

func (w writer) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), wire.Chunk)
		if err := w.out.Send(wire.Message{Call: w.call, Out: rest[:n]}); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}
