package daemon

import "sync"

// buffer is what a logger wrote; the writer and the test may be two goroutines.
type buffer struct {
	mu   sync.Mutex
	data []byte
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	return len(p), nil
}

func (b *buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]byte(nil), b.data...)
}

func (b *buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = nil
}

func (b *buffer) String() string { return string(b.Bytes()) }
func (b *buffer) Len() int       { return len(b.Bytes()) }
