package flags

import (
	"fmt"
	"io"

	"github.com/go-logr/logr"
	"go.uber.org/zap/zapcore"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// Logger returns a logger that writes to w as --log-level and --log-format say.
func (o Options) Logger(w io.Writer) logr.Logger {
	level, _ := o.logLevel()
	format := zap.JSONEncoder(logTimes)
	if o.LogFormat == "text" {
		format = zap.ConsoleEncoder(logTimes)
	}
	return zap.New(zap.WriteTo(w), zap.Level(level), format)
}

// logTimes formats times as RFC 3339.
func logTimes(c *zapcore.EncoderConfig) { c.EncodeTime = zapcore.RFC3339TimeEncoder }

// logLevel returns the least severe level that is logged.
func (o Options) logLevel() (level zapcore.Level, ok bool) {
	switch o.LogLevel {
	case "debug":
		return zapcore.DebugLevel, true
	case "info":
		return zapcore.InfoLevel, true
	case "error":
		return zapcore.ErrorLevel, true
	}
	return zapcore.InfoLevel, false
}

func (o Options) validateLog() []error {
	var errs []error
	if _, ok := o.logLevel(); !ok {
		errs = append(errs, fmt.Errorf("--log-level=%s: must be debug, info or error", o.LogLevel))
	}
	if o.LogFormat != "json" && o.LogFormat != "text" {
		errs = append(errs, fmt.Errorf("--log-format=%s: must be json or text", o.LogFormat))
	}
	return errs
}
