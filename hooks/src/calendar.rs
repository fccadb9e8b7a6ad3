//! Dates, for names of dumps and for mail. An image has no time zones: all is UTC.

/// Year, month and day of the Gregorian date `days` after 1970-01-01; counted in years that begin in March.
pub fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_0000_03_01_TO_1970: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + DAYS_0000_03_01_TO_1970;
    let (era, day) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_years_are_those_of_the_calendar() {
        for (days, date) in
            [(0, (1970, 1, 1)), (11_015, (2000, 2, 28)), (11_016, (2000, 2, 29)), (47_541, (2100, 3, 1))]
        {
            assert_eq!(civil(days), date);
        }
    }
}
