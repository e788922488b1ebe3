package webhooks

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"

	"github.com/countersign-dev/countersign/internal/text"
)

// serverLog forwards the errors that net/http logs, such as failed handshakes, to the manager's
// log. Any client that reaches the port can cause such errors. So each is cut to maxLine bytes, and
// those above the rate limit are dropped; the next one that is logged says how many. It implements
// slog.Handler for slog.NewLogLogger, which adds no attributes and no groups.
type serverLog struct {
	log     logr.Logger
	limiter *rate.Limiter
	dropped atomic.Int64
}

// newServerLog returns a serverLog that forwards a burst of 10 errors, and one more every 10 s.
func newServerLog(log logr.Logger) *serverLog {
	return &serverLog{log: log, limiter: rate.NewLimiter(rate.Every(10*time.Second), 10)}
}

// Enabled implements slog.Handler.
func (*serverLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *serverLog) Handle(_ context.Context, r slog.Record) error {
	if !l.limiter.Allow() {
		l.dropped.Add(1)
		return nil
	}
	l.log.Info("The HTTP server reported an error", "report", text.Cut(r.Message, maxLine), "droppedBefore",
		l.dropped.Swap(0))
	return nil
}

// WithAttrs implements slog.Handler.
func (l *serverLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *serverLog) WithGroup(string) slog.Handler { return l }
