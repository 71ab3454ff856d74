package target

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
)

// receive is a fake ssh. It takes an archive from nnf-deploy and discards it, so that the benchmark
// has the cost of sending it. It reads like ssh, 32 KiB at a time.
const receive = `#!/bin/sh
for last; do :; done
m=${last#*n=} m=nnf-deploy:${m%%;*}
printf '\n%s ready\n' "$m"
read -r _ size _
head -c "$size" >/dev/null
echo "$m started"
read -r _ size
dd bs=32k iflag=count_bytes count="$size" of=/dev/null status=none
echo "$m exit 0 0"
`

// A file arrives unchanged through the pipe of a process, and through another writer. A file that
// has become shorter is an error, and the end of the process is not.
func TestSend(t *testing.T) {
	data := make([]byte, 1<<20+17)
	_, _ = rand.Read(data)
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m := member{name: "m0", path: path, size: int64(len(data))}
	a := &archive{members: []member{m, {name: "m1", data: []byte("x"), size: 1}}}
	through := map[string]func(read func(io.Reader)) (io.WriteCloser, func()){
		"a pipe": func(read func(io.Reader)) (io.WriteCloser, func()) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			var done sync.WaitGroup
			done.Go(func() { read(r); r.Close() })
			return w, done.Wait
		},
		"a writer": func(read func(io.Reader)) (io.WriteCloser, func()) {
			r, w := io.Pipe()
			var done sync.WaitGroup
			done.Go(func() { read(r); r.Close() })
			return w, done.Wait
		},
	}
	for name, start := range through {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			w, wait := start(func(r io.Reader) { _, _ = io.Copy(&got, r) })
			err := a.write(&sink{w: w})
			w.Close()
			wait()
			if err != nil {
				t.Fatal(err)
			}
			r := tar.NewReader(&got)
			for _, want := range []string{string(data), "x"} {
				if _, err := r.Next(); err != nil {
					t.Fatal(err)
				}
				if have, err := io.ReadAll(r); err != nil || string(have) != want {
					t.Errorf("%d bytes arrived, want %d: %v", len(have), len(want), err)
				}
			}
			if _, err := r.Next(); err != io.EOF {
				t.Error(err)
			}

			long := m
			long.size++
			w, wait = start(func(r io.Reader) { _, _ = io.Copy(io.Discard, r) })
			s := &sink{w: w}
			if err := long.write(s); err == nil || s.broken || !strings.Contains(err.Error(), "changed while it was being sent") {
				t.Errorf("a shorter file: %v", err)
			}
			w.Close()
			wait()

			w, wait = start(func(r io.Reader) { _, _ = io.CopyN(io.Discard, r, 100_000) })
			s = &sink{w: w}
			if err := m.write(s); err == nil || !s.broken {
				t.Errorf("a reader that ends: %v", err)
			}
			w.Close()
			wait()
		})
	}
}

// BenchmarkSend sends 37 MB, the size of all programs, to one node.
func BenchmarkSend(b *testing.B) {
	dir := b.TempDir()
	data := make([]byte, 37<<20)
	_, _ = rand.Read(data)
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(dir, "ssh")
	if err := executable.Write(program, []byte(receive)); err != nil {
		b.Fatal(err)
	}
	p := &Plan{members: []member{{name: "m0", path: path, size: int64(len(data))}}}
	p.step("binary", "m0", "0755", "root:root", "/usr/bin/program")
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		_, err := Apply(b.Context(), b.Context(), &remote.SSH{Program: program}, "compute-01", p, func(string) {})
		if err == nil || !strings.Contains(err.Error(), "did not report the result") {
			b.Fatal(err)
		}
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(used.Seconds()*1000/float64(b.N), "cpu-ms/op")
}
