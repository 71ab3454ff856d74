package clientmount

import "time"

// calmAfter is how long nothing must have been going on before the daemon
// counts as idle: longer than the pauses between the steps of a job's start.
const calmAfter = 5 * time.Second

// calm tells the owner once that the work is over for now, some time after the
// last attempt or the first complete list. The timer exists only until then.
type calm struct {
	f     func()
	timer *time.Timer
	busy  bool
}

// work is called when something begins.
func (m *calm) work() {
	m.busy = true
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

// rest is called when nothing is going on (any more).
func (m *calm) rest() {
	if m.busy && m.f != nil {
		m.busy = false
		m.timer = time.AfterFunc(calmAfter, m.f)
	}
}

// rest is called by the loop after each call.
func (c *Controller) rest() {
	for _, o := range c.objects {
		if o.running {
			return
		}
	}
	c.calm.rest()
}
