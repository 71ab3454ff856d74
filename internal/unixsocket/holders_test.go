package unixsocket

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// crowd is a listener whose clients come as the test says.
type crowd struct {
	t     *testing.T
	f     *fakeSocket
	l     *Listener
	conns map[string]*Conn // "7a": uid and a letter
	count map[uint32]int
}

func (c *crowd) come(uids ...uint32) {
	c.t.Helper()
	for _, uid := range uids {
		c.f.connect(c.t, uid)
		conn := accept(c.t, c.l)
		if conn.Peer.UID != uid {
			c.t.Fatalf("%d came in, not %d", conn.Peer.UID, uid)
		}
		name := fmt.Sprintf("%d%c", uid, 'a'+c.count[uid])
		c.count[uid]++
		c.conns[name] = conn
		time.Sleep(time.Second)
	}
}

// here are those that are not closed.
func (c *crowd) here() string {
	var names []string
	for name, conn := range c.conns {
		if conn.Refused() == nil {
			c.l.held.mu.Lock()
			if _, in := c.l.held.users[conn.Peer.UID][conn]; in {
				names = append(names, name)
			}
			c.l.held.mu.Unlock()
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// When all places are taken, users who have fewer get those of users who have
// most: the longest idle first, and none with a call while there are others.
func TestMakeRoom(t *testing.T) {
	for name, tt := range map[string]struct {
		before  []uint32
		prepare func(c *crowd)
		comes   []uint32
		want    string
	}{
		"the longest idle of the largest holder": {
			before: []uint32{8, 7, 7, 7}, comes: []uint32{9}, want: "7b 7c 8a 9a",
		},
		"one that was used lately stays": {
			before:  []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) { c.conns["7a"].Begin(); c.conns["7a"].End() },
			comes:   []uint32{9}, want: "7a 7c 8a 9a",
		},
		"one with a call stays": {
			before:  []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) { c.conns["7a"].Begin(); c.conns["7b"].Begin() },
			comes:   []uint32{9}, want: "7a 7b 8a 9a",
		},
		"unless all have calls": {
			before: []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) {
				for _, n := range []string{"7a", "7b", "7c"} {
					c.conns[n].Begin()
				}
			},
			comes: []uint32{9}, want: "7b 7c 8a 9a",
		},
		"until all have as many": {
			before: []uint32{7, 7, 7, 7}, comes: []uint32{8, 8, 8}, want: "7c 7d 8a 8b",
		},
		"no user has more than one: an idle one": {
			before: []uint32{1, 2, 3, 4}, comes: []uint32{9}, want: "2a 3a 4a 9a",
		},
		"no user has more than one, all with calls": {
			before: []uint32{1, 2, 3, 4},
			prepare: func(c *crowd) {
				for _, conn := range c.conns {
					conn.Begin()
				}
			},
			comes: []uint32{9}, want: "1a 2a 3a 4a",
		},
		"the largest holder replaces no other user": {
			before: []uint32{8, 7, 7, 7}, comes: []uint32{7}, want: "7a 7b 7c 8a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSocket()
				log := new(logs)
				c := &crowd{t: t, f: f, conns: map[string]*Conn{}, count: map[uint32]int{}}
				c.l = f.listener(t, Options{Log: log.logger(), Courtesy: 1, Handshake: -1, Limiter: NewLimiter(LimiterOptions{What: "connections", Total: 4})})
				c.come(tt.before...)
				if tt.prepare != nil {
					tt.prepare(c)
				}
				c.come(tt.comes...)
				if got := c.here(); got != tt.want {
					t.Errorf("%s stay, want %s", got, tt.want)
				}
				if s := c.l.Stats(); s.Evicted > 0 != strings.Contains(log.String(), "closed to make room") {
					t.Errorf("%+v, %s", s, log)
				}
				for _, conn := range c.conns {
					conn.Close()
				}
				if len(c.l.held.users) != 0 {
					t.Errorf("%v stay", c.l.held.users)
				}
			})
		})
	}
}

// The client of a connection that is closed sees its end.
func TestMakeRoomEnds(t *testing.T) {
	f := newFakeSocket()
	l := f.listener(t, Options{Limiter: NewLimiter(LimiterOptions{What: "connections", Total: 2})})
	idle := f.connect(t, 7)
	f.connect(t, 7)
	accept(t, l)
	accept(t, l)
	f.connect(t, 8)
	if c := accept(t, l); c.Peer.UID != 8 || c.Refused() != nil {
		t.Errorf("%+v: %v", c.Peer, c.Refused())
	}
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection: %v", err)
	}
}
