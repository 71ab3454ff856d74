package daemon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const journalSocketPath = "/run/systemd/journal/socket"

// journalPatience is enough for a busy journal, and little enough that a mount is
// not held up by one that hangs.
const journalPatience = 500 * time.Millisecond

var errJournalClosed = errors.New("connection to the journal is closed")

// journalSocket sends entries to the journal in its native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). go-systemd's journal package
// has the socket's path fixed, sends on an unconnected socket whose full
// receiver a poller cannot wait for, and spills large entries into named files;
// this one is connected, waits for a short time only, and spills into a sealed
// memory file. It needs no goroutine. Safe for concurrent use.
type journalSocket struct {
	path     string
	patience time.Duration // how long one send may wait for a journal that hangs

	mu     sync.Mutex
	file   *os.File // nil: not connected
	closed bool
}

// Send hands one encoded entry over. A journal that was restarted is
// reconnected to; any error means that the entry was not taken.
func (j *journalSocket) Send(entry []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errJournalClosed
	}
	var err error
	for range 2 {
		if err = j.connect(); err != nil {
			return err
		}
		err = sendmsg(int(j.file.Fd()), entry, nil)
		if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
			err = sendMemfd(int(j.file.Fd()), entry)
		}
		if err == nil || errors.Is(err, unix.EAGAIN) {
			break
		}
		j.disconnect()
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", j.path, err)
	}
	return nil
}

// Close ends the connection. Later entries are refused.
func (j *journalSocket) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.disconnect()
	return nil
}

func (j *journalSocket) connect() error {
	if j.file != nil {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket for the journal: %w", err)
	}
	// A journal that hangs must not hang us.
	limit := unix.NsecToTimeval(int64(j.patience))
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: j.path})
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("connect to %s: %w", j.path, err)
	}
	j.file = os.NewFile(uintptr(fd), j.path)
	return nil
}

func (j *journalSocket) disconnect() {
	if j.file != nil {
		j.file.Close() // a datagram socket has nothing to lose
		j.file = nil
	}
}

func sendmsg(fd int, p, oob []byte) error {
	for range 10 { // a signal interrupts a send that has a time limit
		err := unix.Sendmsg(fd, p, oob, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return unix.EINTR
}

// sendMemfd passes an entry that is too large for a datagram as a memory file.
// The journal maps it, so it wants every seal.
func sendMemfd(socket int, entry []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("memory file: %w", err)
	}
	file := os.NewFile(uintptr(fd), "journal-entry")
	defer file.Close()
	if _, err = file.Write(entry); err != nil {
		return fmt.Errorf("memory file: %w", err)
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal memory file: %w", err)
	}
	return sendmsg(socket, nil, unix.UnixRights(fd))
}

// appendJournalField encodes one field. A value with a line feed is sent with its
// length, which also keeps it from forging further fields.
func appendJournalField(b []byte, name, value string) []byte {
	b = append(b, name...)
	if !strings.Contains(value, "\n") {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	b = append(b, value...)
	return append(b, '\n')
}
