// Errors fed forward in float32, and the factorization: quick to compile, so that mistakes can be planted in their headers.
#include "factor.h"
#include "feedback.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int factor(FactorTask* task) { return VARIANT::factor(task); }

EXPORT int feed_forward(FeedbackTask* task) { return VARIANT::feedback_dtype<VARIANT::Float32>(*task); }
