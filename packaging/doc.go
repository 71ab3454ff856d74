// Package packaging holds tests of what makes the packages, as far as neither a
// compiler nor an RPM tool is needed; internal/e2e/packages has the rest.
package packaging
