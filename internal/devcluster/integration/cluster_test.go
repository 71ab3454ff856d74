// Package integration tests the built devcluster program. It must not link the server.
package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var binary string

func TestMain(m *testing.M) {
	if binary = os.Getenv("DEVCLUSTER"); binary == "" {
		build := exec.Command("../build.sh")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err := build.Run()
		if err == nil {
			var name []byte
			name, err = exec.Command("../build.sh", "--name").Output()
			binary = strings.TrimSpace(string(name))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "build devcluster:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// cluster is a running "devcluster up".
type cluster struct {
	dir, url, tmp string
	cmd           *exec.Cmd
	stdin         io.Closer
	stderr        *bytes.Buffer
}

// start runs "up --stdin" on dir and returns at the ready line.
func start(t *testing.T, dir string, flags ...string) *cluster {
	t.Helper()
	return serve(t, "up", dir, flags...)
}

// serve runs "up" or "join".
func serve(t *testing.T, verb, dir string, flags ...string) *cluster {
	t.Helper()
	c := &cluster{dir: dir, tmp: t.TempDir(), stderr: &bytes.Buffer{}}
	c.cmd = exec.Command(binary, append([]string{verb, "--dir", dir, "--stdin"}, flags...)...)
	c.cmd.Env = append(os.Environ(), "TMPDIR="+c.tmp)
	c.cmd.Stderr = c.stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		if t.Failed() {
			t.Logf("output of devcluster:\n%s", c.stderr)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		c.cmd.Wait()
		t.Fatalf("no ready line: %v\n%s", err, c.stderr)
	}
	var gotDir string
	if _, err := fmt.Sscanf(line, "ready %s dir=%s\n", &c.url, &gotDir); err != nil || gotDir != dir {
		t.Fatalf("ready line %q", line)
	}
	t.Logf("ready after %.1f s, %s", time.Since(started).Seconds(), memory(c.cmd.Process.Pid))
	return c
}

func memory(pid int) string {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	line, _, _ := strings.Cut(after, "\n")
	return "RSS " + strings.TrimSpace(line)
}

// end waits until the process exits and checks that it leaves nothing behind.
func (c *cluster) end(t *testing.T) {
	t.Helper()
	const limit = time.Minute // it takes 2 s, or longer on a busy machine
	killer := time.AfterFunc(limit, func() { c.cmd.Process.Kill() })
	err := c.cmd.Wait()
	if !killer.Stop() {
		t.Fatalf("did not exit within %v", limit)
	}
	if err != nil {
		t.Errorf("exited with %v", err)
	}
	for _, dir := range []string{filepath.Join(c.dir, "run"), c.tmp} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// call runs a sub-command and returns its exit code and output.
func (c *cluster) call(t *testing.T, stdin, verb string, args ...string) (int, string, string) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{verb, "--dir", c.dir}, args...)...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	if e := cmd.Run(); e != nil && cmd.ProcessState == nil {
		t.Fatal(e)
	}
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

// must is call for sub-commands that must succeed.
func (c *cluster) must(t *testing.T, stdin, verb string, args ...string) string {
	t.Helper()
	code, out, err := c.call(t, stdin, verb, args...)
	if code != 0 {
		t.Fatalf("%s %q: exit %d, %s", verb, args, code, err)
	}
	return out
}

func (c *cluster) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// client returns a client configuration from a kubeconfig in the cluster directory.
func (c *cluster) client(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.dir, kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

func (c *cluster) kill() {
	c.cmd.Process.Signal(syscall.SIGKILL)
	c.cmd.Wait()
}
