// What every function of the C interface does with failures.
#pragma once

#include "edgevoice.h"

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace ev {

inline std::string &last_error() {
    thread_local std::string text;
    return text;
}

inline ev_status fail(ev_status status, std::string text) {
    last_error() = std::move(text);
    return status;
}

// Runs `body`; what it throws becomes a status.
template <typename Body> ev_status guarded(Body body) noexcept {
    try {
        last_error().clear();
        return body();
    } catch (const std::bad_alloc &) {
        return fail(EV_ERR_MEMORY, "out of memory");
    } catch (const std::length_error &error) {
        return fail(EV_ERR_GRAMMAR, error.what());
    } catch (const std::system_error &error) { // no more threads
        return fail(EV_ERR_MEMORY, error.what());
    } catch (const std::exception &error) {
        return fail(EV_ERR_INTERNAL, error.what());
    } catch (...) {
        return fail(EV_ERR_INTERNAL, "unknown C++ exception");
    }
}

} // namespace ev
