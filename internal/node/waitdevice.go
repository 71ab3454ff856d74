package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// WaitDevice returns as soon as path leads to a block device, at most limit later.
// It is woken by the kernel (inotify), there is no poll. The error after limit says
// "timeout waiting for device <path>" and wraps what is there instead (ErrNoDevice).
func (n *Node) WaitDevice(ctx context.Context, path string, limit time.Duration) error {
	if _, err := n.BlockDevice(path); err == nil {
		return nil
	}
	var last error
	err := n.waitFor(ctx, limit, func() []string { return n.devicePlaces(path) }, func() (bool, error) {
		_, last = n.BlockDevice(path)
		if last != nil && !errors.Is(last, ErrNoDevice) {
			return false, last
		}
		return last == nil, nil
	})
	if errors.Is(err, errTooLate) {
		return fmt.Errorf("timeout waiting for device %s after %v: %w", path, limit, last)
	}
	if err != nil {
		return fmt.Errorf("waiting for device %s: %w", path, err)
	}
	return nil
}

// devicePlaces returns the directories in which something must appear next for path
// to become a device: the nearest one that exists above path and, when path is
// already a symlink, also above what it points to.
func (n *Node) devicePlaces(path string) []string {
	places := []string{nearest(n.kernel(path))}
	for range 8 {
		to, err := os.Readlink(n.kernel(path))
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = filepath.Clean(to)
		places = append(places, nearest(n.kernel(path)))
	}
	return places
}
