package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func init() {
	if os.Getenv("NODE_TEST_HELPER") == "user" {
		runtime.LockOSThread() // /proc/PID/status shows the user IDs of the main thread
	}
	helpers["user"] = useFile
	helpers["init"] = func([]string) {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, "")); err != nil {
			panic(err)
		}
		os.Unsetenv("NODE_TEST_HELPER")
		test, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			panic(err)
		}
		for { // as process 1, it has the processes whose parent has exited
			var status unix.WaitStatus
			if pid, err := unix.Wait4(-1, &status, 0, nil); pid == test.Pid {
				os.Exit(status.ExitStatus())
			} else if err != nil && err != unix.EINTR {
				panic(err)
			}
		}
	}
}

// useFile uses a path as args[0] says, as the user IDs in args[2], and prints its pid. At
// each line of its input it does what the line says. It exits at the end of its input.
func useFile(args []string) {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
	}
	how, path, ids := args[0], args[1], args[2]
	release := func() {}
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		check(err)
		check(f.Truncate(4096))
		release = func() { f.Close() }
		return f
	}
	switch how {
	case "private copy", "copy": // in another mount namespace, the latter with propagation
		check(unix.Unshare(unix.CLONE_NEWNS))
		check(unix.Mount("", "/", "", unix.MS_REC|map[string]uintptr{"private copy": unix.MS_PRIVATE, "copy": unix.MS_SLAVE}[how], ""))
		check(unix.Chdir(path))
	case "cwd":
		check(unix.Chdir(path))
		release = func() { check(unix.Chdir("/")) }
	case "root":
		check(unix.Chroot(path))
		check(unix.Chdir("/"))
	case "fd":
		open()
	case "mmap":
		f := open()
		mem, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		check(err)
		check(f.Close())
		release = func() { check(unix.Munmap(mem)) }
	}
	var uid [4]int // real, effective, saved, file system
	_, err := fmt.Sscanf(ids, "%d,%d,%d,%d", &uid[0], &uid[1], &uid[2], &uid[3])
	check(err)
	check(unix.Prctl(unix.PR_SET_SECUREBITS, secbitNoSetuidFixup, 0, 0, 0)) // so that the next call is permitted
	check(syscall.Setresuid(uid[0], uid[1], uid[2]))
	_, _ = unix.SetfsuidRetUid(uid[3])
	fmt.Println(os.Getpid())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "leave" {
			release()
		}
		fmt.Println("done")
	}
}

// user is a process that uses a file.
type user struct {
	t    *testing.T
	pid  int
	in   io.WriteCloser
	out  *bufio.Reader
	read *os.File
}

const person = "1234,1234,1234,1234"

// secbitNoSetuidFixup (capabilities(7)) keeps the capabilities at a change of user.
const secbitNoSetuidFixup = 1 << 2

// startUser starts a process that uses path. It is not a descendant of this process,
// because its parent exits.
func startUser(t *testing.T, how, path, ids string, env ...string) *user {
	t.Helper()
	return startUserAfter(t, "", how, path, ids, env...)
}

// startUserAfter is startUser with a shell command that the parent runs before.
func startUserAfter(t *testing.T, first, how, path, ids string, env ...string) *user {
	t.Helper()
	inRead, inWrite, err := os.Pipe()
	must(t, err)
	outRead, outWrite, err := os.Pipe()
	must(t, err)
	exe, err := os.Executable()
	must(t, err)
	parent := exec.Command("sh", "-c", `exec 3<&0; `+first+` "$0" "$@" <&3 3<&- &`, exe, how, path, ids)
	parent.Env = append(append(os.Environ(), "NODE_TEST_HELPER=user"), env...)
	parent.Stdin, parent.Stdout, parent.Stderr = inRead, outWrite, os.Stderr
	must(t, parent.Run())
	inRead.Close()
	outWrite.Close()
	t.Cleanup(func() { inWrite.Close(); outRead.Close() })
	u := &user{t: t, in: inWrite, out: bufio.NewReader(outRead), read: outRead}
	u.pid, err = strconv.Atoi(u.line())
	must(t, err)
	return u
}

func (u *user) line() string {
	u.t.Helper()
	line, err := u.out.ReadString('\n')
	must(u.t, err)
	return strings.TrimSpace(line)
}

// do makes the process carry out a command, which also shows that it still runs.
func (u *user) do(command string) {
	u.t.Helper()
	fmt.Fprintln(u.in, command)
	if got := u.line(); got != "done" {
		u.t.Fatalf("%s: %q", command, got)
	}
}

func (u *user) ended() {
	u.t.Helper()
	must(u.t, u.read.SetReadDeadline(time.Now().Add(time.Minute)))
	if _, err := u.out.ReadString('\n'); err != io.EOF {
		u.t.Errorf("process %d has not exited: %v", u.pid, err)
	}
}

// mountForUsers mounts a file system for all users, and returns it.
func mountForUsers(t *testing.T) (*Node, Mount) {
	t.Helper()
	n := &Node{}
	at := filepath.Join(t.TempDir(), "mount")
	must(t, os.Mkdir(at, 0o755))
	for dir := at; dir != "/"; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		must(t, err)
		must(t, os.Chmod(dir, st.Mode()|0o055))
	}
	must(t, unix.Mount("users", at, "tmpfs", 0, "mode=1777"))
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	m, err := n.MountAt(at)
	must(t, err)
	return n, *m
}

// userOf returns the holder that a search finds for a process, or nil.
func userOf(t *testing.T, n *Node, m Mount, pid int) *Holder {
	t.Helper()
	list, err := n.Users(t.Context(), m, 0)
	must(t, err)
	for _, h := range list {
		if h.PID == pid {
			return &h
		}
	}
	return nil
}

var people = SignalRule{MinUID: 1000, Mark: "NODE_TEST_COMMAND="}

// A process of an ordinary user that uses the mount is found and ended, however it uses
// the mount.
func TestSignalUser(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	n, m := mountForUsers(t)
	must(t, os.Mkdir(m.Mountpoint+"/dir", 0o777))
	none := func(int) (int, error) { return -1, unix.ENOSYS }
	hidden := func(int) (int, error) { return -1, unix.EPERM }
	for _, tt := range []struct {
		how, path, kind string
		pidfd           func(int) (int, error)
	}{
		{"cwd", "/dir", "cwd", nil}, {"fd", "/file", "fd", nil}, {"mmap", "/mapped", "mmap", nil}, {"cwd", "", "cwd", nil},
		{"cwd", "", "cwd", none}, {"cwd", "", "cwd", hidden},
	} {
		t.Run(tt.how+tt.path, func(t *testing.T) {
			n.pidfd = tt.pidfd
			u := startUser(t, tt.how, m.Mountpoint+tt.path, person)
			h := userOf(t, n, m, u.pid)
			if h == nil || h.Kind != tt.kind || h.UID != 1234 || h.Start == "" || h.Command == "" {
				t.Fatalf("found %+v", h)
			}
			if left := n.WaitExit(t.Context(), []Process{h.Process()}, 0); len(left) != 1 {
				t.Errorf("still running: %v", left)
			}
			now, err := n.SignalUser(t.Context(), m, *h, unix.SIGTERM, people)
			if err != nil || now != *h {
				t.Fatalf("%+v, %v; found %+v", now, err, h)
			}
			u.ended()
			if left := n.WaitExit(t.Context(), []Process{h.Process()}, time.Minute); len(left) > 0 {
				t.Errorf("still running: %v", left)
			}
			if _, err := n.SignalUser(t.Context(), m, *h, unix.SIGTERM, people); !errors.Is(err, ErrNoUser) {
				t.Errorf("after the exit: %v", err)
			}
		})
	}
}

// A process is not signalled if it has left the mount since the search, if it is not the
// process that the search found, or if the mount is another one.
func TestSignalUserTooLate(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	n, m := mountForUsers(t)
	for _, how := range []string{"cwd", "fd", "mmap"} {
		t.Run("left, "+how, func(t *testing.T) {
			path := m.Mountpoint
			if how != "cwd" {
				path += "/" + how
			}
			u := startUser(t, how, path, person)
			h := userOf(t, n, m, u.pid)
			u.do("leave")
			if _, err := n.SignalUser(t.Context(), m, *h, unix.SIGKILL, people); !errors.Is(err, ErrNoUser) {
				t.Errorf("%v", err)
			}
			u.do("nothing")
		})
	}
	u := startUser(t, "cwd", m.Mountpoint, person)
	h := userOf(t, n, m, u.pid)
	stale := *h
	start, err := strconv.Atoi(stale.Start)
	must(t, err)
	stale.Start = strconv.Itoa(start - 1)
	unknown := *h
	unknown.Start = ""
	other := m
	other.ID++
	for _, open := range []func(int) (int, error){nil, func(int) (int, error) { return -1, unix.ENOSYS }} {
		n.pidfd = open
		if _, err := n.SignalUser(t.Context(), m, stale, unix.SIGKILL, people); !errors.Is(err, ErrNoUser) {
			t.Errorf("another start time: %v", err)
		}
		if _, err := n.SignalUser(t.Context(), m, unknown, unix.SIGKILL, people); err == nil {
			t.Error("no start time: no error")
		}
		if _, err := n.SignalUser(t.Context(), other, *h, unix.SIGKILL, people); !errors.Is(err, ErrNoUser) {
			t.Errorf("another mount: %v", err)
		}
	}
	if left := n.WaitExit(t.Context(), []Process{stale.Process()}, time.Minute); len(left) > 0 {
		t.Errorf("waited for another process: %v", left)
	}
	u.do("nothing")
	must(t, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	if _, err := n.Users(t.Context(), m, 0); !errors.Is(err, ErrNoUser) {
		t.Errorf("unmounted: %v", err)
	}
	if _, err := n.SignalUser(t.Context(), m, *h, unix.SIGKILL, people); !errors.Is(err, ErrNoUser) {
		t.Errorf("unmounted: %v", err)
	}
	u.do("nothing")
}

// A process that has the pid of a process that the search found is not signalled: here the
// kernel reuses a pid.
func TestSignalUserReusedPID(t *testing.T) {
	if !inPIDNamespace(t) {
		return
	}
	n, m := mountForUsers(t)
	for name, open := range map[string]func(int) (int, error){
		"pidfd": nil, "no pidfd": func(int) (int, error) { return -1, unix.ENOSYS },
	} {
		t.Run(name, func(t *testing.T) {
			n.pidfd = open
			u := startUser(t, "cwd", m.Mountpoint, person)
			old := userOf(t, n, m, u.pid)
			u.in.Close()
			u.ended()
			pid := fmt.Sprintf("/proc/%d", u.pid)
			wait.Until(t, "the process is reaped", func() bool { return missing(pid) })
			wait.Pass(t, 20*time.Millisecond, "a start time has a resolution of 10 ms")
			again := startUserAfter(t, fmt.Sprintf("echo %d > /proc/sys/kernel/ns_last_pid;", u.pid-1), "cwd", m.Mountpoint, person)
			if again.pid != u.pid {
				t.Fatalf("the new process has pid %d, not %d", again.pid, u.pid)
			}
			if _, err := n.SignalUser(t.Context(), m, *old, unix.SIGKILL, people); !errors.Is(err, ErrNoUser) {
				t.Errorf("%v", err)
			}
			again.do("nothing")
			h := userOf(t, n, m, again.pid)
			if _, err := n.SignalUser(t.Context(), m, *h, unix.SIGKILL, people); err != nil {
				t.Errorf("with its own identity: %v", err)
			}
			again.ended()
		})
	}
}

// Processes of root and of system users, those of this process, and all with an invalid
// identity are never signalled.
func TestSignalUserProtects(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	n, m := mountForUsers(t)
	refused := func(t *testing.T, h Holder, rule SignalRule, reason string) {
		t.Helper()
		_, err := n.SignalUser(t.Context(), m, h, unix.SIGKILL, rule)
		if p := (*ProtectedError)(nil); !errors.As(err, &p) || !strings.HasPrefix(p.Reason, reason) {
			t.Errorf("error %v, want reason %q", err, reason)
		}
	}
	for _, tt := range []struct {
		ids    string
		rule   SignalRule
		reason string
	}{
		{"0,0,0,0", people, "it belongs to root"},
		{"0,0,0,0", SignalRule{MinUID: 1}, "it belongs to root"},
		{"0,1234,1234,1234", people, "it belongs to root"},
		{"1234,0,1234,1234", people, "it belongs to root"},
		{"1234,1234,1234,0", people, "it belongs to root"},
		{"1234,1234,0,1234", people, "it belongs to root"},
		{"999,999,999,999", people, "it belongs to the system user 999; ordinary users have IDs from 1000"},
		{"1234,1234,999,1234", people, "it belongs to the system user 999"},
		{"65534,65534,65534,65534", people, "it belongs to user 65534"},
		{person, SignalRule{MinUID: 1235, Mark: people.Mark}, "it belongs to the system user 1234"},
	} {
		t.Run(tt.ids, func(t *testing.T) {
			u := startUser(t, "cwd", m.Mountpoint, tt.ids)
			if got := strings.Trim(fmt.Sprint(statusIn(fmt.Sprintf("/proc/%d", u.pid)).users()), "[]"); got != strings.ReplaceAll(tt.ids, ",", " ") {
				t.Fatalf("the process has the users %s, want %s", got, tt.ids)
			}
			refused(t, *userOf(t, n, m, u.pid), tt.rule, tt.reason)
			u.do("nothing")
		})
	}
	t.Run("a command of this daemon", func(t *testing.T) {
		u := startUser(t, "cwd", m.Mountpoint, person, people.Mark+"x")
		h := *userOf(t, n, m, u.pid)
		refused(t, h, people, "this daemon started it")
		u.do("nothing")
		if _, err := n.SignalUser(t.Context(), m, h, unix.SIGTERM, SignalRule{MinUID: 1000, Mark: "ODE_TEST_COMMAND="}); err != nil {
			t.Errorf("another variable: %v", err)
		}
	})
	t.Run("a child", func(t *testing.T) {
		child := exec.Command("sleep", "1000")
		child.Dir = m.Mountpoint
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}, Setsid: true}
		must(t, child.Start())
		defer func() { child.Process.Kill(); child.Wait() }()
		refused(t, *userOf(t, n, m, child.Process.Pid), people, "this daemon started it")
	})
	t.Run("a grandchild", func(t *testing.T) {
		child := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait")
		child.Dir = m.Mountpoint
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 1234}, Setpgid: true}
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		defer func() { unix.Kill(-child.Process.Pid, unix.SIGKILL); child.Wait() }()
		var pid int
		_, err = fmt.Fscan(out, &pid)
		must(t, err)
		refused(t, *userOf(t, n, m, pid), people, "this daemon started it")
	})
	u := startUser(t, "cwd", m.Mountpoint, person)
	h := *userOf(t, n, m, u.pid)
	for _, pid := range []int{1, 0, -1, -u.pid} {
		wrong := h
		wrong.PID = pid
		if _, err := n.SignalUser(t.Context(), m, wrong, unix.SIGKILL, people); err == nil {
			t.Errorf("pid %d: no error", pid)
		}
	}
	if _, err := n.SignalUser(t.Context(), m, h, unix.SIGKILL, SignalRule{}); err == nil {
		t.Error("no lowest user ID: no error")
	}
	self := h
	self.PID, self.Start = os.Getpid(), ProcessStart(os.Getpid())
	if _, err := n.SignalUser(t.Context(), m, self, unix.SIGKILL, people); err == nil {
		t.Error("this process: no error")
	}
	u.do("nothing")
}

// The pids in a tree of files belong to no processes.
func TestSignalUserOtherProc(t *testing.T) {
	n := plant(t, "proc")
	m, err := n.MountAt("/mnt/x")
	must(t, err)
	p := (*ProtectedError)(nil)
	_, err = n.SignalUser(t.Context(), *m, Holder{PID: os.Getpid(), Start: "1"}, unix.SIGKILL, people)
	if !errors.As(err, &p) || !strings.Contains(p.Reason, "pid namespace") {
		t.Errorf("%v", err)
	}
}

// Users leaves out processes that do not prevent the unmount: those that use a mount below
// the mount, or a private copy in another namespace. It has those of a copy that the kernel
// unmounts together with the mount.
func TestUsersIsExact(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	n, m := mountForUsers(t)
	below := m.Mountpoint + "/below"
	must(t, os.Mkdir(below, 0o755))
	must(t, unix.Mount("below", below, "tmpfs", 0, "mode=1777"))
	inside := startUser(t, "cwd", below, person)
	file := startUser(t, "fd", below+"/file", person)
	copied := startUser(t, "private copy", m.Mountpoint, person)
	all, err := n.Holders(t.Context(), m, 0)
	must(t, err)
	for _, u := range []*user{inside, file, copied} {
		if !slices.ContainsFunc(all, func(h Holder) bool { return h.PID == u.pid }) {
			t.Fatalf("process %d is not even a holder", u.pid) // the checks below would prove nothing
		}
		if h := userOf(t, n, m, u.pid); h != nil {
			t.Errorf("found %v", h)
		}
		h := all[slices.IndexFunc(all, func(h Holder) bool { return h.PID == u.pid })]
		if _, err := n.SignalUser(t.Context(), m, h, unix.SIGKILL, people); !errors.Is(err, ErrNoUser) {
			t.Errorf("%v: %v", h, err)
		}
		u.do("nothing")
	}
	must(t, unix.Unmount(below, unix.MNT_DETACH))
	must(t, unix.Unmount(m.Mountpoint, 0)) // nothing of the above prevents it

	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	must(t, unix.Mount("users", m.Mountpoint, "tmpfs", 0, "mode=1777"))
	shared, err := n.MountAt(m.Mountpoint)
	must(t, err)
	u := startUser(t, "copy", m.Mountpoint, person)
	h := userOf(t, n, *shared, u.pid)
	if h == nil || h.Namespace == "" {
		t.Fatalf("a copy that follows: %v", h)
	}
	if err := unix.Unmount(m.Mountpoint, 0); err != unix.EBUSY {
		t.Fatalf("it does not prevent the unmount: %v", err)
	}
	if _, err := n.SignalUser(t.Context(), *shared, *h, unix.SIGTERM, people); err != nil {
		t.Errorf("%v", err)
	}
	u.ended()
	n.WaitExit(t.Context(), []Process{h.Process()}, time.Minute)
	if err := unix.Unmount(m.Mountpoint, 0); err != nil {
		t.Errorf("still busy after the exit: %v", err)
	}
}

// A process in the cgroup of this daemon was started by it, unless the parent of the
// daemon is in the same cgroup.
func TestInOwnCgroup(t *testing.T) {
	for _, tt := range []struct {
		parent, process string
		want            bool
	}{
		{"0::/init.scope\n", "0::/system.slice/a.service\n", true},
		{"0::/init.scope\n", "0::/system.slice/b.service\n", false},
		{"0::/system.slice/a.service\n", "0::/system.slice/a.service\n", false},
	} {
		n := &Node{Root: t.TempDir()}
		for dir, text := range map[string]string{"self": "0::/system.slice/a.service\n", strconv.Itoa(os.Getppid()): tt.parent, "4242": tt.process} {
			dir = filepath.Join(n.Root, "proc", dir)
			must(t, os.MkdirAll(dir, 0o755))
			must(t, os.WriteFile(dir+"/cgroup", []byte(text), 0o644))
		}
		dir, err := unix.Open(filepath.Join(n.Root, "proc/4242"), unix.O_PATH|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(dir)
		if got := (&search{n: n}).worker(nil).inOwnCgroup(&candidate{pid: 4242, dir: dir}); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

func TestMinUID(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       uint32 // 0: an error
	}{
		{"shipped", "# comment\nUID_MIN\t\t\t 1000\nUID_MAX\t\t\t60000\nSYS_UID_MIN 101\n", 1000},
		{"of the site", "UID_MIN 5000\n", 5000},
		{"in quotes", "\t UID_MIN  \"500\"\n", 500},
		{"without a line end", "UID_MIN 500", 500},
		{"no entry", "GID_MIN 77\n#UID_MIN 99\nXUID_MIN 88\n", 1000},
		{"empty", "", 1000},
		{"two entries", "UID_MIN 500\nUID_MIN 2000\nUID_MIN 600\n", 2000},
		{"no value", "UID_MIN\n", 0},
		{"text", "UID_MIN abc\n", 0},
		{"zero", "UID_MIN 0\n", 0},
		{"negative", "UID_MIN -1\n", 0},
		{"octal", "UID_MIN 0100\n", 0},
		{"hexadecimal", "UID_MIN 0x3e8\n", 0},
		{"too large", "UID_MIN 4294967295\n", 0},
		{"two values", "UID_MIN 1000 2000\n", 0},
		{"one valid, one not", "UID_MIN 1000\nUID_MIN x\n", 0},
		{"long file", strings.Repeat("# comment\n", 200000), 0},
		{"long line", strings.Repeat("x", 1<<17), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &Node{Root: t.TempDir()}
			must(t, os.MkdirAll(n.Root+"/etc", 0o755))
			must(t, os.WriteFile(n.kernel(loginDefs), []byte(tt.text), 0o644))
			got, err := n.MinUID()
			if got != tt.want || (err != nil) != (tt.want == 0) {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
	n := &Node{Root: t.TempDir()}
	if got, err := n.MinUID(); got != 1000 || err != nil {
		t.Errorf("no file: %d, %v", got, err)
	}
	must(t, os.MkdirAll(n.kernel(loginDefs), 0o755))
	if got, err := n.MinUID(); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory: %d, %v", got, err)
	}
	must(t, os.Remove(n.kernel(loginDefs)))
	must(t, unix.Mkfifo(n.kernel(loginDefs), 0o644))
	if got, err := n.MinUID(); err == nil {
		t.Errorf("a pipe: %d", got)
	}
}
