package kube

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// State says how a watch is doing.
type State struct {
	// Connected: the last request succeeded.
	Connected bool
	// Synced: Handler.Replace was called at least once. It stays true while
	// the server is away; what the caller knows is then merely old.
	Synced bool
	// Since is when Connected last changed.
	Since time.Time
	// LastError is the latest failure; it stays after reconnecting, so that
	// the message can say what was wrong.
	LastError error
	// Failures counts the failed attempts since the connection was lost; in
	// the State that reports a reconnect, those before it.
	Failures int
}

// tracker calls its listener when the state changes: connected, lost, another
// kind of failure, connected again. Retries that fail the same way are silent.
type tracker struct {
	on    func(State)
	now   State
	known bool // the listener has heard something
}

func (t *tracker) tell() {
	t.known = true
	if t.on != nil {
		t.on(t.now)
	}
}

// up records a success.
func (t *tracker) up(synced bool) {
	change := !t.known || !t.now.Connected || (synced && !t.now.Synced)
	if !t.known || !t.now.Connected {
		t.now.Connected, t.now.Since = true, time.Now()
	}
	t.now.Synced = t.now.Synced || synced
	if change {
		t.tell()
	}
	t.now.Failures = 0
}

// down records a failure.
func (t *tracker) down(err error) {
	change := !t.known || t.now.Connected || !SameTrouble(err, t.now.LastError)
	if !t.known || t.now.Connected {
		t.now.Connected, t.now.Since = false, time.Now()
	}
	t.now.LastError = err
	t.now.Failures++
	if change {
		t.tell()
	}
}

// Kinds of trouble that are no HTTP status.
const (
	kindConnection  int32 = 0
	kindCertificate int32 = -1
	kindName        int32 = -2
	kindNotServed   int32 = -3
)

// kindOf sorts errors by what an administrator would do about them: the HTTP
// status, or what kept us from getting one.
func kindOf(err error) int32 {
	var api apierrors.APIStatus
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, ErrNotServed):
		return kindNotServed
	case errors.As(err, &api):
		return api.Status().Code
	case errors.As(err, &cert):
		return kindCertificate
	case errors.As(err, &dns):
		return kindName
	}
	return kindConnection
}

// SameTrouble tells whether two failures ask the administrator for the same.
// Their texts may differ even then: they name ports and stream numbers.
func SameTrouble(a, b error) bool {
	kind := kindOf(a)
	if kind == kindNotServed && errors.Is(b, ErrNotServed) {
		return a.Error() == b.Error()
	}
	return kind == kindOf(b)
}
