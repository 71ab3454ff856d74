package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// ErrVersionGone means that the server does not serve the resource at this
// version (any more): run discovery again. A server that has just started may
// also answer like this for a few seconds.
var ErrVersionGone = errors.New("the API server does not serve this version")

// ErrNotConfigured means that nothing says where the API server is.
var ErrNotConfigured = errors.New("no API server configured")

// ErrNotServed means that none of the versions that we know is served.
var ErrNotServed = errors.New("no served version is known to this program")

// Error is a failed request in words for an administrator. Unwrap leads to the
// API status error or the network error.
type Error struct {
	text string
	err  error
	gone bool
}

// Error returns the text.
func (e *Error) Error() string { return e.text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Is makes errors.Is(err, ErrVersionGone) true where it applies.
func (e *Error) Is(target error) bool { return target == ErrVersionGone && e.gone }

// IsNotFound reports that the object does not exist. It is false when the
// version is not served, which says nothing about the object.
func IsNotFound(err error) bool {
	return apierrors.IsNotFound(err) && !errors.Is(err, ErrVersionGone)
}

// IsConflict reports that the object changed since the version a patch named.
func IsConflict(err error) bool { return apierrors.IsConflict(err) }

// IsInvalid reports that the server refused the content of an object.
func IsInvalid(err error) bool { return apierrors.IsInvalid(err) }

// IsForbidden reports that the account lacks a right.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }

// IsAlreadyExists reports that an object of that name exists.
func IsAlreadyExists(err error) bool { return apierrors.IsAlreadyExists(err) }

// explain turns err of the request what into an *Error.
func (c *Client) explain(ctx context.Context, what op, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{err: err}
	var api apierrors.APIStatus
	if errors.As(err, &api) {
		e.text, e.gone = c.statusText(what, api.Status())
		return e
	}
	e.text = c.networkText(ctx, what, err)
	return e
}

func (c *Client) who() string {
	if a := c.Account(); a != "" {
		return a
	}
	return "an unknown account"
}

func (c *Client) statusText(what op, s metav1.Status) (text string, gone bool) {
	switch s.Code {
	case http.StatusUnauthorized:
		text = fmt.Sprintf("%s: API server %s refused the credentials of %s (%s): expired or rotated?", what, c.host, c.who(), c.source)
		if c.token != nil {
			text += " a renewed one is used without restart"
			if bad := c.token.trouble(); bad != nil {
				text += "; the file cannot be read now: " + bad.Error()
			}
		}
		return text, false
	case http.StatusForbidden:
		where := "in all namespaces"
		if what.ns != "" {
			where = fmt.Sprintf("in namespace %q", what.ns)
		}
		return fmt.Sprintf("%s: %s may not %s %s %s: check the role and its binding (%s)",
			what, c.who(), what.verb, what.resource(), where, clip(s.Message)), false
	case http.StatusNotFound:
		// A status about an object (or its namespace) names it; one about a
		// path that is not served does not.
		if what.r.Version != "" && (s.Details == nil || s.Details.Name == "") {
			return fmt.Sprintf("%s: API server %s does not serve %s in version %s",
				what, c.host, what.r.Plural, schema.GroupVersion{Group: what.r.Group, Version: what.r.Version}), true
		}
		return fmt.Sprintf("%s: %s", what, clip(s.Message)), false
	}
	msg := s.Message
	if s.Details != nil {
		for _, cause := range s.Details.Causes {
			if cause.Type == metav1.CauseTypeUnexpectedServerResponse && cause.Message != "" && cause.Message != "unknown" {
				msg += ": " + cause.Message
			}
		}
	}
	text = fmt.Sprintf("%s: API server %s answered %d: %s", what, c.host, s.Code, clip(msg))
	if s.Code == http.StatusTooManyRequests && strings.Contains(msg, "storage is (re)initializing") {
		// It keeps answering like this if it cannot convert what it has stored.
		text += "; if this lasts: does the conversion webhook of these objects answer?"
	}
	return text, false
}

func (c *Client) networkText(ctx context.Context, what op, err error) string {
	cause := err
	// url.Error repeats method and URL, which the text has already.
	if u := (*url.Error)(nil); errors.As(err, &u) {
		cause = u.Err
	}
	text := fmt.Sprintf("%s: cannot reach API server %s: %s", what, c.host, clip(cause.Error()))
	var certErr *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Sprintf("%s: API server %s gave no answer in time (%s)", what, c.host, c.o.Timeout)
	case errors.As(err, &certErr):
		hint := "; is the CA certificate that of this cluster?"
		if c.o.CertFile != "" {
			hint = fmt.Sprintf("; does %s hold the CA certificate of this cluster?", c.o.CertFile)
		}
		return text + hint
	case errors.As(err, &dns):
		return text + "; does the host name resolve on this node?"
	}
	return text
}

// clip bounds text of others in our messages.
func clip(s string) string { return text.Clip(s, 1024) }

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

// SameTrouble reports whether two failures ask the administrator for the same.
// Their texts may differ even then: they name ports and stream numbers.
func SameTrouble(a, b error) bool {
	kind := kindOf(a)
	if kind == kindNotServed && errors.Is(b, ErrNotServed) {
		return a.Error() == b.Error()
	}
	return kind == kindOf(b)
}
