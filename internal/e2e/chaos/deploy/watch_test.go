package deploy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watcher follows all files below a directory with inotify, and examines each file at once. A local user
// tries to read each file as well.
type watcher struct {
	fd     int
	stop   *os.File // closing its other end stops the watcher
	closes *os.File
	ended  sync.WaitGroup
	reader *reader
	checks atomic.Int64

	mu       sync.Mutex
	dirs     map[int32]string
	open     map[inode]string // files that others could open, and how
	excused  map[inode]bool   // files that the administrator has made readable
	problems []string
	seen     map[string]bool
	changed  func(path string) string // reports a wrong change of a file, or ""
}

type inode struct{ device, number uint64 }

const watched = unix.IN_CREATE | unix.IN_ATTRIB | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_MODIFY | unix.IN_MOVED_FROM | unix.IN_DELETE

// newWatcher follows the files below directories.
func newWatcher(changed func(path string) string, directories ...string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	stop, closes, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	w := &watcher{fd: fd, stop: stop, closes: closes, dirs: map[int32]string{}, open: map[inode]string{}, excused: map[inode]bool{}, seen: map[string]bool{}, changed: changed}
	if w.reader, err = startReader(w.readable); err != nil {
		return nil, err
	}
	w.mu.Lock()
	for _, dir := range directories {
		w.add(dir)
	}
	w.mu.Unlock()
	w.ended.Go(w.follow)
	return w, nil
}

// close ends the watcher, and returns the problems.
func (w *watcher) close() []string {
	w.closes.Close()
	w.ended.Wait()
	w.stop.Close()
	_ = unix.Close(w.fd)
	w.reader.close()
	return w.found()
}

func (w *watcher) found() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.problems...)
}

func (w *watcher) problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(fmt.Sprintf(format, args...))
}

func (w *watcher) note(text string) {
	if !w.seen[text] {
		w.seen[text] = true
		w.problems = append(w.problems, time.Now().Format("05.000 ")+text)
	}
}

// add follows a directory and all below it, and examines what is already there.
func (w *watcher) add(dir string) {
	number, err := unix.InotifyAddWatch(w.fd, dir, watched|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
	if err != nil {
		return // it has gone
	}
	w.dirs[int32(number)] = dir
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			w.add(path)
		} else {
			w.examine(path)
		}
	}
}

// schedFIFO is SCHED_FIFO of sched(7).
const schedFIFO = 1

// follow reads the events. It runs before all other processes, so that it sees each file before a script
// can change it again, on a busy machine, too.
func (w *watcher) follow() {
	runtime.LockOSThread() // and ends with the goroutine
	priority := int32(1)
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedFIFO, uintptr(unsafe.Pointer(&priority))) // without it, less is found
	poll := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}, {Fd: int32(w.stop.Fd()), Events: unix.POLLIN}}
	buffer := make([]byte, 1<<16)
	for {
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR || poll[1].Revents != 0 {
			return
		}
		n, err := unix.Read(w.fd, buffer)
		if err != nil {
			continue // nothing to read
		}
		w.mu.Lock()
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[at]))
			name := strings.TrimRight(string(buffer[at+unix.SizeofInotifyEvent:at+unix.SizeofInotifyEvent+int(event.Len)]), "\x00")
			at += unix.SizeofInotifyEvent + int(event.Len)
			w.event(event, name)
		}
		w.mu.Unlock()
	}
}

func (w *watcher) event(event *unix.InotifyEvent, name string) {
	if event.Mask&unix.IN_Q_OVERFLOW != 0 {
		w.note("inotify events were lost")
		return
	}
	dir, known := w.dirs[event.Wd]
	if !known || name == "" {
		return
	}
	path := filepath.Join(dir, name)
	switch {
	case event.Mask&unix.IN_ISDIR != 0:
		if event.Mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 {
			w.add(path)
		}
		return
	case event.Mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) == 0:
		w.examine(path)
	}
	if text := w.changed(path); text != "" {
		w.note(text)
	}
}

// limitOfSecrets is the size of the largest file that can have a secret.
const limitOfSecrets = 64 << 10

// examine checks a file: one that has a secret, or gets one later, must never be open to other users.
func (w *watcher) examine(path string) {
	w.checks.Add(1)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return // it has gone, or is a link
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	id := inode{uint64(st.Dev), st.Ino}
	if how := exposed(&st); how != "" && w.open[id] == "" {
		w.open[id] = how
	}
	w.reader.try(path)
	if w.open[id] == "" || w.excused[id] || st.Size > limitOfSecrets {
		return
	}
	if data, _ := io.ReadAll(io.LimitReader(f, limitOfSecrets)); bytes.Contains(data, []byte(secretMark)) {
		w.note(fmt.Sprintf("%s has a secret, and was open to others: %s", path, w.open[id]))
	}
}

// exposed returns why users other than root and the daemon can read a file, or "".
func exposed(st *unix.Stat_t) string {
	switch {
	case st.Mode&0o007 != 0 || st.Mode&0o020 != 0 || st.Mode&0o040 != 0 && st.Gid != 0 && st.Gid != account || st.Uid != 0 && st.Uid != account:
		return fmt.Sprintf("mode %04o, owner %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
	}
	return ""
}

// excuse makes a change of the administrator, after which other users may read a file.
func (w *watcher) excuse(path string, change func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil {
		w.excused[inode{uint64(st.Dev), st.Ino}] = true
	}
	_ = change() // the file may not exist
}

// readable is called for a file with a secret that the reader could read.
func (w *watcher) readable(id inode, path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.excused[id] {
		w.note("a local user has read " + path)
	}
}

// reader is a process of a local user that tries to read files.
type reader struct {
	cmd   *exec.Cmd
	paths chan string
	ended sync.WaitGroup
}

// readerVariable makes the test binary the reader.
const readerVariable = "CHAOS_READER"

func startReader(readable func(id inode, path string)) (*reader, error) {
	// Other users cannot access the directory of the test binary.
	r := &reader{cmd: exec.Command("/proc/self/exe"), paths: make(chan string, 1<<14)}
	r.cmd.Env = []string{readerVariable + "=1"}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: localUser, Gid: localUser}, Pdeathsig: unix.SIGKILL}
	r.cmd.Stderr = os.Stderr
	to, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	r.ended.Go(func() {
		for path := range r.paths {
			_, _ = io.WriteString(to, path+"\n") // the reader is killed at the end
		}
		to.Close()
	})
	r.ended.Go(func() {
		for s := bufio.NewScanner(from); s.Scan(); {
			var id inode
			var path string
			if _, err := fmt.Sscan(s.Text(), &id.device, &id.number, &path); err != nil {
				path = s.Text()
			}
			readable(id, path)
		}
	})
	return r, nil
}

// try makes the reader read a file.
func (r *reader) try(path string) {
	select {
	case r.paths <- path:
	default: // it is too slow
	}
}

func (r *reader) close() {
	close(r.paths)
	r.ended.Wait()
	_ = r.cmd.Wait()
}

// read is the process of the reader: it reads the files whose paths are on standard input, and prints
// those that have a secret.
func read() {
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		f, err := os.Open(s.Text())
		if err != nil {
			continue
		}
		data, _ := io.ReadAll(io.LimitReader(f, limitOfSecrets))
		var st unix.Stat_t
		if bytes.Contains(data, []byte(secretMark)) && unix.Fstat(int(f.Fd()), &st) == nil {
			fmt.Println(uint64(st.Dev), st.Ino, s.Text())
		}
		f.Close()
	}
}

// arguments looks for secrets in the command lines of all processes, until done is closed.
func (w *watcher) arguments(done <-chan struct{}) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range all {
			if line, err := os.ReadFile(path); err == nil && bytes.Contains(line, []byte(secretMark)) {
				w.problem("a secret is in a command line: %q", line)
			}
		}
		w.checks.Add(1)
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}
