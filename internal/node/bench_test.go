package node

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The two halves of the overhead of Exec: ours and os/exec with the same work.

func BenchmarkExecOurs(b *testing.B) {
	e := &Exec{}
	for b.Loop() {
		if _, err := e.Run(b.Context(), Command{Argv: []string{"true"}, Timeout: time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExecStandard(b *testing.B) {
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), "true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if _, err := cmd.Output(); err != nil {
			b.Fatal(err)
		}
	}
}

// crowd starts count additional processes for the duration of the benchmark.
func crowd(b *testing.B, count int) {
	if _, err := exec.LookPath("perl"); err != nil {
		b.Skip("perl is needed to start the processes")
	}
	// The children exit when the pipe is closed, even if this test is killed.
	script := `$|=1; for(1..` + strconv.Itoa(count) + `){defined($p=fork) or die; if(!$p){sysread STDIN,$x,1; exit}} print "ready"; sysread STDIN,$x,1; wait for 1..` + strconv.Itoa(count)
	cmd := exec.Command("perl", "-e", script)
	in, err := cmd.StdinPipe()
	must(b, err)
	out, err := cmd.StdoutPipe()
	must(b, err)
	must(b, cmd.Start())
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 5)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDeviceHolders5000 searches for the holders of a device without holders.
func BenchmarkDeviceHolders5000(b *testing.B) {
	crowd(b, 5000)
	n := &Node{}
	for b.Loop() {
		if got, err := n.DeviceHolders(context.Background(), Device{4000, 4000}, 0); err != nil || len(got) > 0 {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkHolders5000 searches for the holders of a mount without holders, which is the
// longest search, among 5,000 additional processes.
func BenchmarkHolders5000(b *testing.B) {
	crowd(b, 5000)
	n := &Node{}
	// A file system with mappings takes the most time, so use the device of the root.
	root, err := n.MountAt("/")
	must(b, err)
	m := Mount{ID: 1 << 30, Major: root.Major, Minor: root.Minor, Root: "/", Mountpoint: "/without/holders"}
	b.ResetTimer()
	for b.Loop() {
		if got, err := n.Holders(context.Background(), m, 0); err != nil || len(got) > 50 {
			b.Fatal(len(got), err)
		}
	}
	b.StopTimer()
	if e, err := os.ReadDir("/proc"); err == nil {
		b.ReportMetric(float64(len(e)), "proc-entries")
	}
}
