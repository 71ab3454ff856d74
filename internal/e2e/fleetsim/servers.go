package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// severalServers measures the loss and the return of one of two API servers on the same
// etcd, behind a load balancer, while a job has its storage mounted. The nodes of the lost
// server move to the other one; the other nodes must not notice anything. At the end of the
// job all nodes must unmount.
func (s *simulation) severalServers() (err error) {
	if err := s.fleet.stopAll(); err != nil {
		return err
	}
	second, address, err := s.cluster.Join(s.ctx)
	if err != nil {
		return err
	}
	b, err := balance(s.fleet.server.Address, address)
	if err != nil {
		return err
	}
	direct := s.fleet.server.Address
	s.fleet.server.Address = b.Addr().String()
	defer func() {
		s.fleet.server.Address = direct
		err = errors.Join(err, s.fleet.stopAll(), b.close())
		second.Kill9()
	}()
	for _, n := range s.fleet.nodes {
		if err := s.fleet.start(n); err != nil {
			return err
		}
	}
	if _, err := s.synced(); err != nil {
		return err
	}
	if err := s.createJob(s.part, s.part); err != nil {
		return err
	}
	if err := s.awaitJob(s.part); err != nil {
		return err
	}
	err = s.measure("one of two API servers lost", func(r *row) error {
		on := b.connections()
		second.Kill9()
		r.checks = append(r.checks, func(r *row) {
			stayed := 0
			for _, c := range r.perNode {
				if c.total() == 0 {
					stayed++
				}
			}
			if on[0] == 0 || on[1] == 0 || stayed != on[0] {
				r.wrong([]string{fmt.Sprintf("%d nodes sent no request; %d used the other server, and %d the lost one", stayed, on[0], on[1])})
			}
			r.each("writes after the loss", func(c counts) bool { return c.requests[patch] == 0 && c.requests[profile] == 0 })
		})
		times, err := s.moved(r.started, on[1])
		if err != nil {
			return err
		}
		r.Nodes = on[1]
		r.setTimes(times, slices.Max(times))
		r.How = "from the end of the server until a node follows the other one; requests are per node of all nodes"
		return nil
	})
	if err != nil {
		return err
	}
	err = s.measure("the lost API server is back", func(r *row) (err error) {
		if second, address, err = s.cluster.Join(s.ctx); err != nil {
			return err
		}
		b.replace(1, address)
		r.checks = append(r.checks, healthy, s.nothingLeft, func(r *row) {
			r.each("end of the job", func(c counts) bool {
				return c.requests[watch] == 0 && c.requests[list] == 0 && c.requests[patch] <= maxWrites+c.failed[overload]
			})
		})
		started := time.Now()
		if err := s.endJob(s.part); err != nil {
			return err
		}
		r.setTimes([]float64{time.Since(started).Seconds()}, time.Since(r.started).Seconds())
		r.How = fmt.Sprintf("until the job has ended on %d nodes, through the servers that they use", len(s.part))
		return nil
	})
	return err
}

// moved waits until that many nodes have a new watch, and the others their old one. It
// returns the seconds from the given time for each moved node.
func (s *simulation) moved(since time.Time, want int) (times []float64, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err = wait.For(ctx, "the nodes of the lost API server", func() (bool, error) {
		times = times[:0]
		all := true
		for _, n := range s.fleet.nodes {
			at := n.daemon.following()
			all = all && !at.IsZero()
			if at.After(since) {
				times = append(times, at.Sub(since).Seconds())
			}
		}
		return all && len(times) >= want, nil
	})
	return times, err
}

// balancer forwards connections to servers in turn, and to the next one if a server
// refuses the connection, as a load balancer of a Kubernetes control plane does.
type balancer struct {
	net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	servers []string // host:port
	turn    int
	open    map[net.Conn]int // the connections to servers, with the index of the server
}

// balance listens on a free port of 127.0.0.1.
func balance(servers ...string) (*balancer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{Listener: l, servers: servers, open: map[net.Conn]int{}}
	b.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			b.wg.Go(func() { b.forward(client) })
		}
	})
	return b, nil
}

func (b *balancer) forward(client net.Conn) {
	defer client.Close()
	server := b.dial()
	if server == nil {
		return
	}
	defer func() {
		_ = server.Close()
		b.mu.Lock()
		delete(b.open, server)
		b.mu.Unlock()
	}()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{server, client}, {client, server}} {
		b.wg.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // ends when either side closes its connection
			ended <- struct{}{}
		})
	}
	<-ended
}

// dial connects to the next server that accepts the connection, or returns nil.
func (b *balancer) dial() net.Conn {
	b.mu.Lock()
	first, servers := b.turn, slices.Clone(b.servers)
	b.turn++
	b.mu.Unlock()
	for i := range servers {
		n := (first + i) % len(servers)
		if c, err := net.DialTimeout("tcp", servers[n], 10*time.Second); err == nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.open[c] = n
			return c
		}
	}
	return nil
}

// connections returns the number of open connections to each server.
func (b *balancer) connections() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]int, len(b.servers))
	for _, n := range b.open {
		out[n]++
	}
	return out
}

// replace changes the address of a server for new connections.
func (b *balancer) replace(n int, address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers[n] = address
}

// close closes all connections.
func (b *balancer) close() error {
	err := b.Listener.Close()
	b.mu.Lock()
	for c := range b.open {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
	return err
}
