package figures

import (
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	tests := []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2}, // nearest rank: a measured value
		{[]float64{3, 1, 2}, 0, 1},
		{[]float64{3, 1, 2}, 1, 3},
		{[]float64{3, 1, 2}, 0.99, 3},
	}
	for _, tt := range tests {
		if got := Quantile(tt.values, tt.q); got != tt.want {
			t.Errorf("Quantile(%v, %v) = %v, want %v", tt.values, tt.q, got, tt.want)
		}
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine("v1.2.3")
	if m.Time == "" || m.Daemon != "v1.2.3" || m.Cores < 1 || m.Processor == "" || m.Memory < 1 || m.Kernel == "" || m.Go == "" || m.Load == "" {
		t.Errorf("%+v", m)
	}
}

func TestProcessors(t *testing.T) {
	busy, had, err := processors("cpu  100 20 30 400 50 1 2 3 99 98\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if busy != 1560*time.Millisecond || had != 6060*time.Millisecond || err != nil {
		t.Errorf("%v, %v, %v", busy, had, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "cpu  1 2 3 x 5 6 7 8 9 10", "intr 1 2 3 4 5 6 7 8 9"} {
		if _, _, err := processors(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if busy, had, err := Processors(); busy <= 0 || had <= busy || err != nil {
		t.Errorf("this machine: %v, %v, %v", busy, had, err)
	}
}
