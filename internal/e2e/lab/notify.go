package lab

import (
	"context"
	"net"
	"strings"
	"time"
)

// Notice is one message to the service manager, such as READY=1.
type Notice struct {
	Time time.Time
	Text string
}

// Value returns the value of a variable in the message.
func (n Notice) Value(name string) (string, bool) {
	for line := range strings.SplitSeq(n.Text, "\n") {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

// notices receives them in the manager's place.
type notices struct {
	feed[Notice]
	conn *net.UnixConn
	over chan struct{}
}

// lastNotice is what close sends itself, behind all that others have sent.
const lastNotice = "lab: no more"

func listenNotices(path string) (*notices, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	n := &notices{conn: conn, over: make(chan struct{})}
	go func() {
		defer close(n.over)
		defer n.end()
		buf := make([]byte, 64<<10)
		for {
			size, err := conn.Read(buf)
			if err != nil || string(buf[:size]) == lastNotice {
				return
			}
			n.add(Notice{time.Now(), string(buf[:size])})
		}
	}()
	return n, nil
}

// close stops receiving, after what was sent already. A deadline would lose
// that on a busy machine: who reads behind one gets nothing, whatever is there.
func (n *notices) close() {
	if n == nil {
		return
	}
	if conn, err := net.DialUnix("unixgram", nil, n.conn.LocalAddr().(*net.UnixAddr)); err == nil {
		_, _ = conn.Write([]byte(lastNotice))
		conn.Close()
	}
	_ = n.conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // should that not have come
	<-n.over
	n.conn.Close()
}

// Notices returns the daemon's messages to the service manager so far.
func (d *Daemon) Notices() []Notice {
	if d.notices == nil {
		return nil
	}
	return d.notices.all()
}

// WaitNotice returns the first message with the assignment, such as READY=1,
// past or future.
func (d *Daemon) WaitNotice(ctx context.Context, assignment string) (Notice, error) {
	return d.notices.wait(ctx, func(n Notice) bool {
		return strings.Contains("\n"+n.Text+"\n", "\n"+assignment+"\n")
	})
}

// WaitNoticeText returns the first message that contains the text, past or
// future.
func (d *Daemon) WaitNoticeText(ctx context.Context, text string) (Notice, error) {
	return d.notices.wait(ctx, func(n Notice) bool { return strings.Contains(n.Text, text) })
}

// WaitReady returns how long the daemon took from exec to READY=1.
func (d *Daemon) WaitReady(ctx context.Context) (time.Duration, error) {
	n, err := d.WaitNotice(ctx, "READY=1")
	return n.Time.Sub(d.Started), err
}
