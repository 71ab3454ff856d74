package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// withClients is a fresh daemon to which clients are connected that have asked
// for its version and keep the connection, as libraries do.
func (s *offload) withClients(n int) (*subject, error) {
	m, err := s.plain()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return &subject{about: nnfDM, what: "nobody there", daemon: m.Daemon, resident: 13, anonymous: 3, switches: 8}, nil
	}
	var conns []*grpc.ClientConn
	for range n {
		conn, c, err := dial(jobUser, m.socket)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
		if _, err := c.Version(s.ctx, new(emptypb.Empty)); err != nil {
			return nil, fmt.Errorf("client %d: %w", len(conns), err)
		}
	}
	end := func() error {
		for _, c := range conns {
			c.Close()
		}
		return s.stop(m.Daemon)
	}
	return &subject{about: nnfDM, what: fmt.Sprintf("%d clients", n), daemon: m.Daemon, resident: 40, switches: 8, end: end}, nil
}

// crowded measures what one user's calls take while another holds many
// connections: as many as the defaults allow, and as many as wanted.
func (s *offload) crowded() error {
	raised := filepath.Join(s.Dir, "raised.toml")
	text := fmt.Sprintf("version = 1\n[limits]\nconnections = %d\nconnections_per_user = %d\n", s.connections+100, s.connections+10)
	if err := os.WriteFile(raised, []byte(text), 0o644); err != nil {
		return err
	}
	for _, k := range []struct{ what, config string }{
		{"default limits", os.DevNull}, {"limits raised", raised},
	} {
		m, err := s.mover(s.cluster.Address(), s.cluster.CertFile(), k.config)
		if err != nil {
			return err
		}
		if err := s.crowd(m, k.what); err != nil {
			return err
		}
		if err := s.stop(m.Daemon); err != nil {
			return err
		}
	}
	return nil
}

func (s *offload) crowd(m *mover, what string) error {
	held, err := idlers(crowder, s.connections, m.socket)
	if err != nil {
		return err
	}
	defer held.close()
	conn, c, err := dial(jobUser, m.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	uid, err := s.create(c)
	if err != nil {
		return err
	}
	if err := s.settled(c, uid); err != nil {
		return err
	}
	polls, err := s.timePolls(c, uid)
	if err != nil {
		return err
	}
	s.add("status among idle connections, p99, "+what, "ms", 5, false, []float64{quantile(polls, 0.99)},
		fmt.Sprintf("another user has opened %d, %d were let in; worst %s ms", s.connections, len(held), number(slices.Max(polls))))
	u, err := m.Usage()
	if err != nil {
		return err
	}
	s.add("memory resident then, "+what, "MB", noTarget, true, []float64{float64(u.RSS) / 1e6}, fmt.Sprintf("%d connections", len(held)))
	return nil
}
